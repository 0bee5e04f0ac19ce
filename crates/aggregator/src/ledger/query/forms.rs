//! Patterns of names as databases have them: globs for SQLite, a regular expression for PostgreSQL.

/// SQLite's globs (<https://www.sqlite.org/lang_expr.html#glob>), as a JSON list.
pub fn globs(forms: &[String]) -> String {
    let glob = |form: &String| -> String {
        let parts = form.chars().map(|letter| match letter {
            '#' => "[0-9]".to_owned(),
            '[' => "[[]".to_owned(),
            other => other.to_string(),
        });
        parts.collect()
    };
    serde_json::Value::from_iter(forms.iter().map(glob)).to_string()
}

/// A regular expression that fits what one of the forms fits
/// (<https://www.postgresql.org/docs/current/functions-matching.html#POSIX-SYNTAX-DETAILS>).
pub fn regex(forms: &[String]) -> String {
    let expression = |form: &String| -> String {
        let parts = form.chars().map(|letter| match letter {
            '*' => ".*".to_owned(),
            '?' => ".".to_owned(),
            '#' => "[0-9]".to_owned(),
            // Before a letter or digit a backslash has a meaning, before anything else it takes it.
            own if own.is_alphanumeric() => own.to_string(),
            sign => format!("\\{sign}"),
        });
        parts.collect()
    };
    let forms: Vec<String> = forms.iter().map(expression).collect();
    format!("^(?:{})$", forms.join("|"))
}

#[cfg(test)]
mod tests {
    use tollmesh_wire::matching::{forms, names_model};

    use super::*;

    /// What SQLite finds is what calls are judged by.
    #[test]
    fn globs_fit_what_names_a_model() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let sql = "SELECT EXISTS (SELECT 1 FROM json_each(?1) f WHERE lower(?2) GLOB f.value)";
        for pattern in [
            "gpt-4o",
            "GPT-4o*",
            "gpt-4-0###",
            "??.a[b]",
            "a[b]",
            "a^b",
            "*",
        ] {
            let globs = globs(&forms(pattern).collect::<Vec<_>>());
            for name in [
                "gpt-4o",
                "GPT-4o-2024-08-06",
                "gpt-4o@default",
                "gpt-4o-mini",
                "gpt-4-0613",
                "gpt-4-0613-20240101",
                "eu.a[b]",
                "A[b]",
                "ab",
                "a^b",
                "",
            ] {
                let found: bool = connection
                    .query_row(sql, (&globs, name), |row| row.get(0))
                    .unwrap();
                assert_eq!(found, names_model(pattern, name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn a_regular_expression_is_of_all_forms() {
        let forms = ["a.b*".to_owned(), "c-#?".to_owned()];
        assert_eq!(regex(&forms), r"^(?:a\.b.*|c\-[0-9].)$");
    }
}
