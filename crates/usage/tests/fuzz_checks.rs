//! The fuzz targets' checks on stable, with bytes that look like the ones that matter.

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use proptest::prelude::*;

const JSON: &str = r#"([\[\]{}:, \n]|"(stream(_options)?|include_usage|model|usage|n|text|items)":|true|false|null|"[a-z"]?"|[0-9.e-]|max_tokens|\\|é){0,40}"#;

const STREAM: &str = r#"([\r\n]|\n\n|\r\n|data: ?|\{|\}|"choices":\[\]|"usage":(\{\}|null)|,|\[DONE\]|: |event: x|é){0,40}"#;

/// Chunk size, choice and body.
fn input(body: String, size: u8, choice: u8) -> Vec<u8> {
    [&[size, choice], body.as_bytes()].concat()
}

/// Some byte of the body is another.
fn with_damage(mut input: Vec<u8>, at: prop::sample::Index, byte: Option<u8>) -> Vec<u8> {
    if let (Some(byte), 3..) = (byte, input.len()) {
        let at = 2 + at.index(input.len() - 2);
        input[at] = byte;
    }
    input
}

macro_rules! checks {
    ($($name:ident of $body:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(1000))]
            $(
                #[test]
                fn $name(
                    body in $body, size in 1u8..9, choice: u8,
                    at in any::<prop::sample::Index>(), byte in any::<Option<u8>>(),
                ) {
                    checks::$name::check(&with_damage(input(body, size, choice), at, byte));
                }
            )*
        }
    };
}

checks! {
    splice of JSON;
    cutter of STREAM;
    json of JSON;
}
