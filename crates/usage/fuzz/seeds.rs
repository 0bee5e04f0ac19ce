//! Writes seeds for the fuzz targets: the fixtures, the recorded exchanges where they lie beside
//! the project, and frames and forms made of them.
//!
//! Called as `fuzz-seeds FOLDER`; each target has its own folder in that one. Without the recordings
//! there are fewer seeds, and nothing else is different.

#[path = "checks/mod.rs"]
mod checks;

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::{env, process};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use checks::read::{CALLS, CONTENT_TYPES};

/// Longer bodies leave nothing to mutate: it is what they begin with that is worth a seed.
const BODY_BYTES_MAX: usize = 12 << 10;

/// Chunks of a prime length end everywhere.
const CHUNK_BYTES: u8 = 7;

/// One exchange, as far as seeds need it.
struct Exchange {
    api: String,
    content_type: String,
    request: Vec<u8>,
    response: Vec<u8>,
}

fn main() -> io::Result<()> {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("error: no folder to write to; usage: fuzz-seeds FOLDER");
        process::exit(2);
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut exchanges = fixtures(&root.join("../../tests/corpus"))?;
    exchanges.extend(recordings(
        &root.join("../../../shared/corpus/exchanges.jsonl"),
    )?);
    let mut seeds = Seeds { folder };
    for exchange in &exchanges {
        seeds.of(exchange)?;
    }
    println!(
        "seeds of {} exchanges in {}",
        exchanges.len(),
        seeds.folder.display()
    );
    Ok(())
}

/// The hand-written exchanges of the checkout.
fn fixtures(corpus: &Path) -> io::Result<Vec<Exchange>> {
    let mut exchanges = Vec::new();
    for api in fs::read_dir(corpus)? {
        let api = api?.path();
        for file in api
            .is_dir()
            .then(|| fs::read_dir(&api))
            .transpose()?
            .into_iter()
            .flatten()
        {
            let path = file?.path();
            if !path.to_string_lossy().ends_with(".case.json") {
                continue;
            }
            let case: Json = serde_json::from_slice(&fs::read(&path)?)?;
            let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
            exchanges.push(Exchange {
                api: text("api"),
                content_type: text("content_type"),
                request: case["request"].to_string().into_bytes(),
                response: fs::read(path.with_file_name(text("response")))?,
            });
        }
    }
    Ok(exchanges)
}

/// The recorded exchanges, one a line; none where the file is missing.
fn recordings(path: &Path) -> io::Result<Vec<Exchange>> {
    let Ok(file) = fs::File::open(path) else {
        return Ok(Vec::new());
    };
    let mut exchanges = Vec::new();
    for line in io::BufReader::new(file).lines() {
        let case: Json = serde_json::from_str(&line?)?;
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let content_type = &case["response_headers"]["content-type"];
        exchanges.push(Exchange {
            api: text("api"),
            content_type: content_type.as_str().unwrap_or_default().to_owned(),
            request: text("request_body").into_bytes(),
            response: STANDARD
                .decode(text("response_body_b64"))
                .unwrap_or_default(),
        });
    }
    Ok(exchanges)
}

/// The folder of all seeds.
struct Seeds {
    folder: PathBuf,
}

impl Seeds {
    /// The seeds that one exchange gives, each to the targets that read its kind.
    fn of(&mut self, exchange: &Exchange) -> io::Result<()> {
        let (request, response) = (cut(&exchange.request), cut(&exchange.response));
        let edits = hash(request) as u8;
        self.write("splice", edits & 7, request)?;
        self.write("json", 0, request)?;
        self.write("json", 0, response)?;
        self.write("form", 0, &form(request))?;
        self.write("form", 1, &[b"\0", request, b"\0\x04true"].concat())?;
        let call = CALLS
            .iter()
            .position(|(_, _, api)| api.name() == exchange.api);
        let call = call.unwrap_or_default();
        let essence = exchange.content_type.split(';').next().unwrap_or_default();
        let kind = CONTENT_TYPES
            .iter()
            .position(|kind| *kind == essence)
            .unwrap_or(0);
        self.write("scan", (kind * CALLS.len() + call) as u8, response)?;
        match kind {
            1 => {
                self.write("sse", call as u8, response)?;
                self.write("cutter", 0, response)?;
            }
            3 => {
                let is_wrapped = u8::from(exchange.api == "bedrock.invoke_stream");
                self.write("eventstream", 2 | is_wrapped, response)?;
            }
            _ => {}
        }
        // The check itself encodes and cuts: each encoding, at a length of the body's own.
        let is_stream = u8::from(kind == 1) << 6;
        let length = hash(response) as u8 % 27;
        for encoding in 0..5 {
            self.write("decode", (0x80 | is_stream) + length + encoding, response)?;
        }
        self.messages(response)
    }

    /// What a WebSocket server would send if it said the same.
    fn messages(&mut self, response: &[u8]) -> io::Result<()> {
        let lines = response
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_prefix(b"data:").unwrap_or(line).trim_ascii());
        let messages: Vec<&[u8]> = lines.filter(|line| line.starts_with(b"{")).collect();
        if messages.is_empty() {
            return Ok(());
        }
        let mut frames = Vec::new();
        for message in messages {
            frames.extend([0x81, 126]);
            let n_bytes = u16::try_from(message.len()).unwrap_or(u16::MAX);
            frames.extend(n_bytes.to_be_bytes());
            frames.extend(message);
        }
        let frames = cut(&frames);
        for choice in 0..3 {
            self.write("frames", choice, frames)?;
            self.write("live", choice + 3, frames)?;
        }
        self.write("live", hash(frames) as u8 % 3, frames)
    }

    fn write(&self, target: &str, choice: u8, body: &[u8]) -> io::Result<()> {
        let folder = self.folder.join(target);
        fs::create_dir_all(&folder)?;
        let seed = [&[CHUNK_BYTES, choice], body].concat();
        fs::write(folder.join(format!("{:016x}", hash(&seed))), seed)
    }
}

fn cut(body: &[u8]) -> &[u8] {
    body.get(..BODY_BYTES_MAX).unwrap_or(body)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A form that holds such bytes as a file, and names a model.
fn form(file: &[u8]) -> Vec<u8> {
    let head = "--b-1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let tail = "\r\n--b-1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm-1\r\n\
                --b-1\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--b-1--\r\n";
    [head.as_bytes(), file, tail.as_bytes()].concat()
}
