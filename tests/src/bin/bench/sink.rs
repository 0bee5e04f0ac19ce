//! An aggregator that costs next to nothing: takes every batch and keeps none.
//!
//! The filter's cost is measured against it, since the real one works on the same cores and would
//! be measured along by what it takes from their caches; [`crate::ingest`] measures that one.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::upstream::find;

const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                       content-length: 43\r\n\r\n\
                       {\"accepted\":1,\"duplicate\":0,\"rejected\":[]}\n";

/// Starts to listen; connections live until the process ends.
pub async fn start() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.context("the sink for events cannot listen on loopback")?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream));
            }
        }
    });
    Ok(address)
}

async fn take(mut stream: TcpStream) -> std::io::Result<()> {
    let mut seen = Vec::with_capacity(64 * 1024);
    loop {
        let whole = loop {
            if let Some(whole) = request_bytes(&seen).filter(|whole| seen.len() >= *whole) {
                break whole;
            }
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
        };
        stream.write_all(TAKEN).await?;
        seen.drain(..whole);
    }
}

/// The bytes of a request whose head is there, body included.
fn request_bytes(seen: &[u8]) -> Option<usize> {
    let head = find(seen.get(..1024.min(seen.len()))?, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&seen[..head]).ok()?;
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head + length.trim().parse::<usize>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        assert_eq!(request_bytes(TAKEN), Some(TAKEN.len()));
        assert_eq!(
            request_bytes(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n"),
            None
        );
    }
}
