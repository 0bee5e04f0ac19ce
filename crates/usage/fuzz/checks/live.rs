//! WebSocket connections: the answers that are read do not depend on chunks, whatever the bytes are.

use tollmesh_usage::{Api, LiveAnswer, LiveScanner, Target};

use super::Input;

const APIS: [Api; 3] = [Api::OpenAiRealtime, Api::OpenAiResponses, Api::GeminiLive];

/// Checks one input: the client's bytes, or the server's.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let choice = usize::from(input.choice);
    let target = Target::new(APIS[choice % APIS.len()], "provider");
    let is_client = (choice / APIS.len()).is_multiple_of(2);
    let whole = answers(&target, is_client, [input.body].into_iter());
    assert_eq!(answers(&target, is_client, input.chunks()), whole);
}

fn answers<'a>(
    target: &Target,
    is_client: bool,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (bool, Vec<LiveAnswer>) {
    let mut scanner = LiveScanner::new(target);
    let mut answers = Vec::new();
    for chunk in chunks {
        match is_client {
            true => scanner.push_client(chunk, 0),
            false => answers.extend(scanner.push_server(chunk, 0)),
        }
    }
    answers.extend(scanner.finish(0));
    (scanner.is_broken(), answers)
}
