//! Forms: they pass as they are, and a well-formed one says what was put into it.

use tollmesh_usage::{Api, Edits, RequestBody, RequestFacts, Target};

use super::Input;

const CONTENT_TYPE: &str = "multipart/form-data; boundary=\"b-1\"";
const DELIMITER: &str = "--b-1";

/// The longest line that is read, in bytes, of its end only the line feed left out.
const LINE_BYTES_MAX: usize = 512;

/// How the header of a part may be written, before its name.
const HEADERS: [&str; 5] = [
    "Content-Disposition: form-data; name=\"NAME\"\r\n",
    "content-disposition:form-data;name=NAME\r\n",
    "Content-Type: text/plain\r\nContent-Disposition: form-data; name=\"NAME\"\r\n",
    "Content-Disposition: form-data; filename=\"a\"; name=\"NAME\"\r\nX-A: b\r\n",
    "Content-Disposition: form-data; filename=\"a\\\"; name=model; b\"; name=\"NAME\"\r\n",
];

const NAMES: [&str; 4] = ["model", "stream", "file", "models"];

/// Checks one input: a form, or what its parts are filled with.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    if input.choice & 1 == 0 {
        read(input.body, &input);
        return;
    }
    let (form, expected) = form(input.body);
    let facts = read(&form, &input);
    assert_eq!((facts.model, facts.streams), expected);
}

/// What the body says, however it is cut.
fn read(body: &[u8], input: &Input<'_>) -> RequestFacts {
    let whole = facts(body, body.len().max(1));
    assert_eq!(facts(body, input.chunk_bytes), whole, "chunks show");
    whole
}

fn facts(form: &[u8], n_chunk: usize) -> RequestFacts {
    let target = Target::new(Api::OpenAiAudio, "openai");
    let edits = Edits {
        include_usage: true,
        model: Some("other".to_owned()),
        max_output_tokens: Some(1),
        ..Edits::default()
    };
    let mut body = RequestBody::new(&target, Some(CONTENT_TYPE), edits);
    assert!(!body.may_change());
    for chunk in form.chunks(n_chunk) {
        assert_eq!(body.push(chunk), None, "a form was edited");
    }
    assert_eq!(body.finish(), None);
    assert_eq!(body.facts().body_bytes, form.len() as u64);
    body.facts().clone()
}

/// A form whose parts have the pieces between zeros as values; each piece's first byte chooses name
/// and header. What must be read of it: the last model, and the last word about streaming.
fn form(bytes: &[u8]) -> (Vec<u8>, (Option<String>, bool)) {
    let mut form = b"preamble\r\n".to_vec();
    let (mut model, mut streams) = (None, false);
    for piece in bytes.split(|byte| *byte == 0) {
        let Some((choice, value)) = piece.split_first() else {
            continue;
        };
        let choice = usize::from(*choice);
        let name = NAMES[choice % NAMES.len()];
        let header = HEADERS[choice / NAMES.len() % HEADERS.len()].replace("NAME", name);
        form.extend([DELIMITER, "\r\n", &header, "\r\n"].concat().as_bytes());
        // A value must not hold the delimiter of its own form.
        let is_torn = value
            .windows(DELIMITER.len())
            .any(|at| at == DELIMITER.as_bytes());
        let value = if is_torn { b"" } else { value };
        form.extend(value);
        form.extend(b"\r\n");
        if let Some(line) = first_line(value) {
            match name {
                "model" => model = Some(line),
                "stream" => {
                    let line = line.to_ascii_lowercase();
                    streams = ["true", "1", "on", "yes"].contains(&line.as_str());
                }
                _ => {}
            }
        }
    }
    form.extend([DELIMITER, "--\r\n"].concat().as_bytes());
    (form, (model, streams))
}

/// The first line of a value, if it is one that is read.
fn first_line(value: &[u8]) -> Option<String> {
    let with_end = [value, b"\r\n"].concat();
    let end = with_end.iter().position(|byte| *byte == b'\n')?;
    let line = &with_end[..end];
    let is_read = line.len() <= LINE_BYTES_MAX;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    is_read
        .then(|| String::from_utf8(line.to_vec()).ok())
        .flatten()
}
