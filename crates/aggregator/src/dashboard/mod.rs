//! The dashboard's files, compiled in.
//!
//! A page, a style sheet, and one ES module a responsibility, which ask `/api/v1` as anyone can. The
//! browser builds nothing out of text but text: there is no `innerHTML`, and the policy that the
//! page is sent with refuses it. Amounts stay the decimal strings that the API answers with;
//! binary fractions only place pixels.
//!
//! The token is kept in `sessionStorage`, not in a cookie. A cookie of `localhost` goes to every
//! port of it, so that with a forwarded port any other local server would be sent the token, and
//! cookies are sent unasked, which is what makes forged requests possible. What is in
//! `sessionStorage` is for one origin, port included, is sent by nobody unasked, and goes with the
//! tab. A script could read it where no script could read an `HttpOnly` cookie; that is what the
//! policy is for.

use sha2::{Digest, Sha256};

/// One file.
pub struct File {
    /// The path in its URL.
    pub path: &'static str,
    /// `content-type`.
    pub media_type: &'static str,
    /// What is in it.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of this folder, under the name that it has here.
macro_rules! file {
    ($name:literal, $media_type:expr) => {
        File {
            path: concat!("/dashboard/", $name),
            media_type: $media_type,
            text: include_str!($name),
        }
    };
}

/// The page itself.
pub static PAGE: File = File {
    path: "/",
    media_type: HTML,
    text: include_str!("index.html"),
};

/// What the page loads.
pub static FILES: &[File] = &[
    file!("style.css", CSS),
    file!("icon.svg", SVG),
    file!("uplot/uPlot.iife.min.js", SCRIPT),
    file!("uplot/uPlot.min.css", CSS),
    file!("uplot/LICENSE", TEXT),
    file!("main.js", SCRIPT),
    file!("address.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("breakdown.js", SCRIPT),
    file!("budgets.js", SCRIPT),
    file!("calls.js", SCRIPT),
    file!("chart.js", SCRIPT),
    file!("comparison.js", SCRIPT),
    file!("controls.js", SCRIPT),
    file!("coverage.js", SCRIPT),
    file!("detail.js", SCRIPT),
    file!("element.js", SCRIPT),
    file!("exact.js", SCRIPT),
    file!("outcomes.js", SCRIPT),
    file!("panel.js", SCRIPT),
    file!("signin.js", SCRIPT),
    file!("summary.js", SCRIPT),
    file!("table.js", SCRIPT),
    file!("tokens.js", SCRIPT),
    file!("trend.js", SCRIPT),
];

impl File {
    /// Its entity tag: the same bytes have the same one in every process.
    pub fn tag(&self) -> String {
        let digest = Sha256::digest(self.text);
        let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!("\"{hex}\"")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn ours() -> impl Iterator<Item = &'static File> {
        let files = FILES.iter().filter(|file| !file.path.contains("/uplot/"));
        files.chain([&PAGE])
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard");
        let names = |folder: &Path| -> BTreeSet<String> {
            let entries = std::fs::read_dir(folder).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect()
        };
        let mut there = names(&folder);
        for other in ["mod.rs", "index.html", "uplot"] {
            there.remove(other);
        }
        there.extend(
            names(&folder.join("uplot"))
                .iter()
                .map(|n| format!("uplot/{n}")),
        );
        let served: BTreeSet<String> = FILES
            .iter()
            .map(|file| file.path.trim_start_matches("/dashboard/").to_owned())
            .collect();
        assert_eq!(served, there);
    }

    #[test]
    fn text_never_becomes_html_or_code() {
        for file in ours().filter(|file| file.media_type == SCRIPT) {
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "DOMParser",
                "srcdoc",
                "eval(",
                "new Function",
                "setAttribute(\"on",
                "setAttribute(\"style",
            ] {
                assert!(!file.text.contains(sink), "{}: {sink}", file.path);
            }
        }
    }

    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        for file in ours() {
            for other in [
                "http://", "https://", "<style", "style=", "onclick=", "onload=",
            ] {
                let text = file.text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(other), "{}: {other}", file.path);
            }
        }
        let inline = "<script>";
        assert!(!PAGE.text.contains(inline));
    }

    /// Otherwise the browser would find out about one module after the other.
    #[test]
    fn every_module_is_named_in_the_page() {
        for file in FILES.iter().filter(|file| file.media_type == SCRIPT) {
            assert!(PAGE.text.contains(file.path), "{}", file.path);
        }
    }

    #[test]
    fn each_module_opens_with_its_responsibility() {
        for file in ours().filter(|file| file.media_type == SCRIPT) {
            assert!(file.text.starts_with("// "), "{}", file.path);
        }
    }
}
