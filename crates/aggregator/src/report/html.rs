//! Pages that stand alone: no script, nothing loaded from anywhere, every value escaped.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::rows::Rows;

/// The one style sheet. The page's policy allows this text by its hash, and no other.
const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --quiet: #777; --bar: #3b7dd8; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--quiet); } td { overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
meter { width: 8rem; } svg { display: block; } rect { fill: var(--bar); } svg text { fill: currentColor; font-size: 11px; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin-left: 1rem; } .quiet { color: var(--quiet); }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; --bar: #6aa5f0; } }
@media print { body { margin: 0; max-width: none; } }
";

/// A page with that title and body. The title is escaped here, the body is HTML already.
pub fn document(title: &str, body: &str) -> String {
    let title = escaped(title);
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\
         </body>\n</html>\n"
    )
}

/// Rows as a page with one table.
pub fn page(title: &str, rows: &Rows) -> String {
    let header: Vec<String> = rows.columns.iter().map(|c| c.replace('_', " ")).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let is_number: Vec<bool> = rows.columns.iter().map(|c| Rows::is_number(c)).collect();
    let body = table(&header, &is_number, rows.cells());
    document(title, &body)
}

/// A table; `is_number` says which columns stand to the right.
pub fn table<R: AsRef<[String]>>(
    header: &[&str],
    is_number: &[bool],
    rows: impl IntoIterator<Item = R>,
) -> String {
    let class = |n: usize| match is_number.get(n) {
        Some(true) => " class=\"n\"",
        _ => "",
    };
    let mut html = String::from("<table>\n<thead><tr>");
    for (n, cell) in header.iter().enumerate() {
        // Writing to a string cannot fail, here and below.
        let _ = write!(html, "<th{}>{}</th>", class(n), escaped(cell));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (n, cell) in row.as_ref().iter().enumerate() {
            let _ = write!(html, "<td{}>{}</td>", class(n), escaped(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n");
    html
}

/// Text as HTML shows it, in elements and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            // No character reference may stand for a control character.
            c if c.is_control() && c != '\n' && c != '\t' => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_text() {
        let cell = "<script>alert('x')</script>&\"\u{1b}".to_owned();
        let html = table(&["team"], &[false], [vec![cell]]);
        assert!(html.contains(
            "<td>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}</td>"
        ));
        let page = document("<b>", &html);
        assert!(page.contains("<title>&lt;b&gt;</title>"));
        assert!(!page.contains("<script"));
        assert!(
            !page.contains("style=\"") && !page.contains("http://") && !page.contains("src=\"")
        );
    }

    #[test]
    fn the_policy_allows_the_one_style_sheet() {
        let page = document("t", "");
        let (_, rest) = page.split_once("<style>").unwrap();
        let (style, _) = rest.split_once("</style>").unwrap();
        let hash = STANDARD.encode(Sha256::digest(style));
        assert!(page.contains(&format!("default-src 'none'; style-src 'sha256-{hash}'")));
    }
}
