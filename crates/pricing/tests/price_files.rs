//! Every mistake in a price file is told, all at once, with its place and remedy.

use tollmesh_pricing::{Book, SourceFile};

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

const HEAD: &str = r#"
schema = 1
provider = "acme"
[tiers]
standard = ["default"]
batch = []
[source]
list = "https://acme.example/pricing"
[calendar.peak]
hours_utc = ["01:00-02:00"]
"#;

fn problems(body: &str) -> Vec<String> {
    let text = format!("{HEAD}{body}");
    let problems = Book::load(&[file("acme.toml", &text)]).err();
    problems
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// One model with these rows; `S` stands for what every row needs.
fn model(rows: &str) -> String {
    let rows = rows.replace('S', r#"src = "list", checked = 2026-11-09"#);
    format!("[[model]]\nid = \"m\"\nrate = [{rows}]\n")
}

#[test]
fn a_right_file_has_no_problem() {
    let rows = r#"
        { until = 2026-01-01, ctx = "<=10", input = "1", S },
        { until = 2026-01-01, ctx = ">10", input = "2", S },
        { from = 2026-01-01, input = "0.50/12", S },
        { from = 2026-01-01, at = "peak", input = "3", S },
        { tier = "batch", free = true, input = "0", S }"#;
    assert_eq!(problems(&model(rows)), [""; 0]);
}

#[test]
fn every_mistake_names_its_place() {
    let cases: &[(&str, String, &[&str])] = &[
        (
            "number literal",
            model("{ input = 2.5, S }"),
            &[
                "acme.toml: model m row 1: `input` is of type float; expected a quoted decimal: \
                 write \"2.5\"",
            ],
        ),
        (
            "no rate",
            model("{ S }"),
            &["acme.toml: model m row 1: no rate at all; give at least one class or unit"],
        ),
        (
            "bad money",
            model(r#"{ input = "1", output = "-1", S }"#),
            &[
                "acme.toml: model m row 1: `output` = \"-1\": expected a decimal such as \"0.25\", \
               or two with a stroke such as \"0.50/12\"",
            ],
        ),
        (
            "source",
            model(r#"{ input = "1", src = "elsewhere" }"#),
            &[
                "acme.toml: model m row 1: `src` \"elsewhere\" is neither in [source] nor an https \
                 address",
                "acme.toml: model m row 1: `checked` is missing: the day the source was read",
            ],
        ),
        (
            "no source",
            model(r#"{ input = "1", checked = 2026-11-09 }"#),
            &["acme.toml: model m row 1: `src` is missing"],
        ),
        (
            "quoted date",
            model(r#"{ input = "1", src = "list", checked = "2026-11-09" }"#),
            &[
                "acme.toml: model m row 1: `checked` is of type string; expected a date such as \
                 2026-11-15, unquoted",
            ],
        ),
        (
            "empty text",
            model(r#"{ input = "1", tier = "", S }"#),
            &["acme.toml: model m row 1: `tier` is empty; expected a text that is not empty"],
        ),
        (
            "silent zero",
            model(r#"{ input = "0", S }"#),
            &[
                "acme.toml: model m row 1: a row that charges nothing must say `free = true`, \
               and no other row may",
            ],
        ),
        (
            "tier",
            model(r#"{ tier = "turbo", input = "1", S }"#),
            &[
                "acme.toml: model m row 1: unknown tier \"turbo\"; [tiers] has batch, standard: \
               add it there, with the provider's words",
            ],
        ),
        (
            "context",
            model(r#"{ ctx = "big", input = "1", S }"#),
            &[
                "acme.toml: model m row 1: `ctx` = \"big\": expected <=N, <N, >N, >=N, or two of \
                 them as in \">32000 <=128000\"",
            ],
        ),
        (
            "either alone",
            model(r#"{ either = true, input = "1", S }"#),
            &["acme.toml: model m row 1: `either` needs a rate for a unit and one for tokens"],
        ),
        (
            "overlap",
            model(r#"{ input = "1", S }, { from = 2026-01-01, input = "2", S }"#),
            &[
                "acme.toml: model m: rows 1 and 2 overlap: both price the same calls; end one \
               (`until`) where the other begins, or part them by `tier`, `ctx`, `at` or `region`",
            ],
        ),
        (
            "overlap of regions",
            model(
                r#"{ input = "1", S }, { region = "eu-*", input = "2", S },
                   { region = ["us-1", "eu-1"], input = "3", S }, { region = "ap-1", input = "4", S }"#,
            ),
            &[
                "acme.toml: model m: rows 2 and 3 overlap: both price the same calls; end one \
               (`until`) where the other begins, or part them by `tier`, `ctx`, `at` or `region`",
            ],
        ),
        (
            "regions alone",
            model(r#"{ region = "eu-1", input = "2", S }"#),
            &[
                "acme.toml: model m: tier standard has rows with `at` or `region` only; add one \
                 for all other calls",
            ],
        ),
        (
            "gap in the input",
            model(r#"{ ctx = "<10", input = "1", S }, { ctx = ">10", input = "2", S }"#),
            &[
                "acme.toml: model m: tier standard: nothing prices an input of 10 tokens from the \
               beginning; close the gap",
            ],
        ),
        (
            "gap in time",
            model(
                r#"{ until = 2026-01-01, input = "1", S }, { from = 2026-02-01, input = "2", S }"#,
            ),
            &[
                "acme.toml: model m: tier standard: nothing prices an input of 0 tokens from \
               2026-01-01T00:00:00Z; close the gap",
            ],
        ),
        (
            "calendar alone",
            model(r#"{ at = "peak", input = "1", S }, { at = "night", input = "1", S }"#),
            &[
                "acme.toml: model m row 2: `at`: no [calendar.night] in this file; add it, \
               or remove `at`",
            ],
        ),
        (
            "span",
            model(r#"{ from = 2026-02-01, until = 2026-02-01, input = "1", S }"#),
            &["acme.toml: model m row 1: `until` is not after `from`"],
        ),
    ];
    for (name, body, want) in cases {
        assert_eq!(problems(body), *want, "{name}");
    }
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    let body = model(r#"{ input = "1", cache_wirte = "1", S }"#)
        + "colour = \"red\"\n[[fee]]\nid = \"f\"\nunit = \"moons\"\neach = \"1\"\nsrc = \"list\"\n\
           checked = 2026-11-09\n[[modifier]]\nid = \"x\"\nwhen = { zone = \"eu\" }\n\
           models = [\"M\", \"z*\"]\ntimes = \"1.1\"\nsrc = \"list\"\nchecked = 2026-11-09\n";
    let found = problems(&body);
    let begins = [
        "acme.toml: model m row 1: unknown key `cache_wirte`; known are ",
        "acme.toml: model m: unknown key `colour`; known are ",
        "acme.toml: fee f: unknown unit \"moons\"; known are ",
        "acme.toml: modifier x: `models`: \"z*\" fits the id of no model here; correct or remove it",
    ];
    assert_eq!(found.len(), begins.len(), "{found:#?}");
    for (found, begin) in found.iter().zip(begins) {
        assert!(found.starts_with(begin), "{found}");
    }
}

#[test]
fn a_name_belongs_to_one_model() {
    let one = |id: &str, names: &str| {
        model(r#"{ input = "1", S }"#)
            .replace("id = \"m\"", &format!("id = \"{id}\"\nmatch = [{names}]"))
    };
    let both = one("a", r#""x-*""#) + &one("b", r#""*-y""#);
    assert_eq!(
        problems(&both),
        ["acme.toml: model b: `match` \"*-y\" and model a claim the same names; make one exact"]
    );
    let exact = one("a", r#""x-*""#) + &one("b", r#""x-y""#);
    assert_eq!(problems(&exact), [""; 0]);
}

#[test]
fn a_name_that_no_call_can_carry_is_refused() {
    let named = |names: &str| model(r#"{ input = "1", S }"#) + &format!("match = {names}\n");
    for (names, want) in [
        (
            "[]",
            "`match` names nothing; leave it out where the id is the only name",
        ),
        ("[\"m\", \"\"]", "`match` has an empty name; remove it"),
        (
            "[\"m{snp}\"]",
            "`match` \"m{snp}\": {snap} is all that may stand in braces",
        ),
        ("7", "`match` is of type integer; expected a list of texts"),
    ] {
        assert_eq!(
            problems(&named(names)),
            [format!("acme.toml: model m: {want}")]
        );
    }
    let prefixes = "schema = 1\nprovider = \"a\"\nprefixes = [\"a/\", \"a:\"]\n";
    let found = Book::load(&[file("a.toml", prefixes)]).unwrap_err();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["a.toml: file: `prefixes`: \"a:\" must end in a slash; no name fits it"]
    );
}

#[test]
fn one_mistake_is_told_once() {
    for (body, want) in [
        (model("1"), "model m: `rate` must be a list of tables"),
        (
            model(r#"{ inptu = "1", S }"#),
            "model m row 1: unknown key `inptu`; known are tz, from, until, tier, ctx, at, region, \
             src, checked, confidence, note, fix, free, either, input, cache_read, ",
        ),
        (
            model(r#"{ input = "1", S }"#).repeat(2),
            "model m: stands twice in this file; remove one",
        ),
    ] {
        let found = problems(&body);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with(&format!("acme.toml: {want}")),
            "{found:#?}"
        );
    }
}

#[test]
fn broken_toml_names_its_line() {
    let found = Book::load(&[file("acme.toml", "schema = 1\nprovider = \n")]).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].file.as_str(), found[0].place.as_str()),
        ("acme.toml", "line 2")
    );
}

#[test]
fn all_files_are_judged_at_once() {
    let found = Book::load(&[
        file("a.toml", "schema = 2\nprovider = \"a\"\n"),
        file("b.toml", "schema = 1\n"),
    ]);
    let found: Vec<String> = found.unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "a.toml: file: `schema` must be 1",
            "b.toml: file: `provider` is missing"
        ]
    );
}

/// 2026-11-15T12:00:00Z.
const NOW_MS: i64 = 1_794_744_000_000;

fn past_edits(earlier: &str, later: &str) -> Vec<String> {
    let files = [("acme.toml", earlier), ("own/acme.toml", later)];
    let files = files.map(|(name, rows)| file(name, &format!("{HEAD}{}", model(rows))));
    assert!(Book::load(&files).is_ok(), "what was edited still loads");
    let problems = Book::past_edits(&files, NOW_MS);
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn rows_of_the_past_stay_or_say_why() {
    let was = r#"
        { until = 2026-01-01, ctx = "<=10", input = "1", S },
        { until = 2026-01-01, ctx = ">10", input = "2", S },
        { from = 2026-01-01, until = 2027-01-01, input = "3", S },
        { from = 2027-01-01, input = "9", S }"#;
    let changed = |from: &str, to: &str| {
        assert!(was.contains(from));
        past_edits(was, &was.replace(from, to))
    };
    let calls = "it prices calls of the past: restore it, or give the row in its place a \
                 `fix = \"why\"`";
    assert_eq!(past_edits(was, was), [""; 0]);
    assert_eq!(
        changed(r#"input = "2""#, r#"input = "2.5""#),
        [format!(
            "own/acme.toml: model m row 2: the row of acme.toml for tier standard until \
             2026-01-01, input of 11 tokens and more is changed here; {calls}"
        )]
    );
    assert_eq!(
        changed(r#"input = "2""#, r#"input = "2.5", fix = "misread""#),
        [""; 0]
    );
    assert_eq!(
        past_edits(was, r#"{ input = "3", S }"#),
        ["input up to 10 tokens", "input of 11 tokens and more"].map(|input| format!(
            "own/acme.toml: model m: the row of acme.toml for tier standard until 2026-01-01, \
             {input} is missing here; {calls}"
        ))
    );
    assert_eq!(
        past_edits(
            was,
            r#"{ input = "3", fix = "own terms since the start", S }"#
        ),
        [""; 0]
    );
    // What holds now and what has only been announced may be corrected.
    assert_eq!(changed(r#"input = "3""#, r#"input = "4""#), [""; 0]);
    assert_eq!(changed(r#"input = "9""#, r#"input = "8""#), [""; 0]);
    // A model that only the earlier file has is still priced by it.
    let other = model(r#"{ input = "1", S }"#).replace("id = \"m\"", "id = \"other\"");
    let files = [
        file("acme.toml", &format!("{HEAD}{}", model(was))),
        file("own/acme.toml", &format!("{HEAD}{other}")),
    ];
    assert_eq!(Book::past_edits(&files, NOW_MS), []);
}

#[test]
fn a_row_for_a_unit_stands_before_a_fee() {
    let body = model(r#"{ input = "1", web_searches = "0.025", S }"#)
        + "[[fee]]\nid = \"f\"\nunit = \"web_searches\"\neach = \"0.01\"\nsrc = \"list\"\n\
           checked = 2026-11-09\n";
    assert_eq!(problems(&body), [""; 0]);
}
