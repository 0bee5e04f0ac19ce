//! Models in paths: found where an API has them, and exchanged.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a path's part may hold as it is (RFC 3986, `pchar`), as far as names of models need it.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@');

/// What stands before the model in the paths of Gemini and of Vertex AI
/// (<https://ai.google.dev/api/generate-content#method:-models.generatecontent>), where the verb
/// comes after a colon.
const MODELS: &str = "/models/";

/// The path with that model in the place of this one. `None` where the path does not have it as
/// Google's do: in those of Azure a deployment stands there that need not exist, and those of
/// Bedrock are signed.
pub fn with_model(path: &str, model: &str, put: &str) -> Option<String> {
    let end_of_path = path.find('?').unwrap_or(path.len());
    let (bare, query) = path.split_at_checked(end_of_path)?;
    let start = bare.rfind(MODELS)? + MODELS.len();
    let (before, rest) = bare.split_at_checked(start)?;
    let (name, verb) = rest.split_at_checked(rest.rfind(':')?)?;
    let is_it = percent_decode_str(name).decode_utf8().ok()? == model;
    let put = utf8_percent_encode(put, PLAIN);
    (is_it && !verb.contains('/')).then(|| format!("{before}{put}{verb}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_exchanged_where_google_has_them() {
        for (path, model, expected) in [
            (
                "/v1beta/models/gemini-2.5-pro:generateContent?key=k:/models/x:y",
                "gemini-2.5-pro",
                Some("/v1beta/models/a%2Fb-1:generateContent?key=k:/models/x:y"),
            ),
            (
                "/v1/projects/p/locations/l/publishers/google/models/m%2D1:streamGenerateContent",
                "m-1",
                Some(
                    "/v1/projects/p/locations/l/publishers/google/models/a%2Fb-1\
                     :streamGenerateContent",
                ),
            ),
            ("/v1beta/models/other:generateContent", "m", None),
            ("/v1beta/models/m", "m", None),
            ("/openai/deployments/m/chat/completions", "m", None),
            ("/model/m/converse", "m", None),
        ] {
            assert_eq!(
                with_model(path, model, "a/b-1").as_deref(),
                expected,
                "{path}"
            );
        }
    }
}
