//! The heap that one stream takes in the filter, by framing, encoding and length of its body.
//!
//! Drives the very session that Envoy drives, over bodies that are made while they are sent, and
//! counts every byte that it allocates from the request's headers to the event. Fails where a
//! stream takes more than it may. Natively pointers are twice as long as in wasm, so that the
//! figures are no less than what a VM sees. `cargo xtask memory` runs it; alone:
//! `cargo run --release -p tollmesh-filter --example stream_memory -- 64` for at most 64 MB.

mod body;
mod call;
mod encoding;
mod framing;
mod heap;

use std::process::ExitCode;

use call::Call;
use encoding::Encoding;
use framing::{FRAMINGS, Framing};

/// Lengths of bodies, in bytes before encoding.
const LENGTHS: [(&str, u64); 5] = [
    ("1 KB", 1 << 10),
    ("64 KB", 64 << 10),
    ("1 MB", 1 << 20),
    ("64 MB", 64 << 20),
    ("1 GB", 1 << 30),
];

fn main() -> ExitCode {
    let most = std::env::args().nth(1).map_or(Ok(1024), |mb| mb.parse());
    let Ok(most) = most else {
        eprintln!("stream_memory: the argument is the longest body in MB");
        return ExitCode::from(2);
    };
    let lengths = LENGTHS.into_iter().filter(|(_, n)| *n <= most << 20);
    let lengths: Vec<(&str, u64)> = lengths.collect();
    println!("peak of one stream's heap in KiB, from its request to its event; by length of body");
    print!("{:<9} {:<15}", "encoding", "framing");
    for (name, _) in &lengths {
        print!(" {name:>7}");
    }
    println!(" {:>7}  bound", "at most");
    let mut is_within = true;
    for encoding in Encoding::ALL {
        for framing in &FRAMINGS {
            is_within &= row(encoding, framing, &lengths);
        }
    }
    match is_within {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Measures and prints one row; whether all of it is within the bound and was read to the token.
fn row(encoding: Encoding, framing: &'static Framing, lengths: &[(&str, u64)]) -> bool {
    print!("{:<9} {:<15}", encoding.name(), framing.name);
    let mut most = 0;
    let mut wrong = Vec::new();
    for (length, n_bytes) in lengths {
        let mut call = Call::begin(framing, encoding);
        encoding.send(framing, *n_bytes, &mut call);
        let figure = call.end();
        most = most.max(figure.peak_bytes);
        print!(" {:>7.1}", kib(figure.peak_bytes));
        if let Err(words) = figure.verdict {
            wrong.push(format!("{length}: {words}"));
        }
    }
    let bound = encoding.bytes_max();
    if most > bound {
        wrong.push("over its bound".to_owned());
    }
    let how = encoding.bound_is();
    println!(" {:>7.1}  {how} {}", kib(bound), wrong.join("; "));
    wrong.is_empty()
}

fn kib(n_bytes: u64) -> f64 {
    n_bytes as f64 / 1024.0
}
