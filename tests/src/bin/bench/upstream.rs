//! A provider that costs next to nothing: prepared answers over raw TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::load::{LOADS, Load, PACE};

/// Starts to listen; connections live until the process ends.
pub async fn start() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.context("the upstream cannot listen on loopback")?;
    let address = listener.local_addr()?;
    let answers: Arc<Vec<Vec<Vec<u8>>>> = Arc::new(LOADS.iter().map(Load::answer).collect());
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, Arc::clone(&answers)));
            }
        }
    });
    Ok(address)
}

/// Answers each request; which answer is asked for stands in the header `x-load`.
async fn serve(mut stream: TcpStream, answers: Arc<Vec<Vec<Vec<u8>>>>) -> std::io::Result<()> {
    let mut seen = Vec::with_capacity(8 * 1024);
    loop {
        let request = loop {
            if let Some(request) = whole_request(&seen) {
                break request;
            }
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
        };
        let answer = answers
            .get(request.load)
            .ok_or(std::io::ErrorKind::InvalidData)?;
        let mut pieces = answer.iter();
        if let Some(first) = pieces.next() {
            stream.write_all(first).await?;
        }
        if pieces.len() > 0 {
            write_paced(&mut stream, pieces.as_slice()).await?;
        }
        seen.drain(..request.n_bytes);
    }
}

/// Writes the rest of an answer, on a beat that a late piece does not shift.
async fn write_paced(stream: &mut TcpStream, pieces: &[Vec<u8>]) -> std::io::Result<()> {
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + PACE, PACE);
    for piece in pieces {
        beat.tick().await;
        stream.write_all(piece).await?;
    }
    Ok(())
}

/// A request that is all there.
#[derive(Debug, PartialEq)]
struct Request {
    n_bytes: usize,
    load: usize,
}

fn whole_request(seen: &[u8]) -> Option<Request> {
    let head = find(seen, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&seen[..head]).ok()?;
    let header = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let load = header("x-load")?.trim().parse().ok()?;
    // A request that the filter may edit goes on without a length.
    let n_bytes = match header("content-length") {
        Some(length) => head + length.trim().parse::<usize>().ok()?,
        None => head + find(&seen[head..], b"0\r\n\r\n")? + 5,
    };
    (seen.len() >= n_bytes).then_some(Request { n_bytes, load })
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_when_its_body_is() {
        let plain = b"POST / HTTP/1.1\r\nx-load: 2\r\ncontent-length: 3\r\n\r\nabc";
        let n_bytes = plain.len();
        assert_eq!(whole_request(plain), Some(Request { n_bytes, load: 2 }));
        assert_eq!(whole_request(&plain[..n_bytes - 1]), None);
        let chunked = b"POST / HTTP/1.1\r\nx-load: 0\r\n\r\n3\r\nabc\r\n0\r\n\r\nPOST";
        assert_eq!(
            whole_request(chunked),
            Some(Request {
                n_bytes: chunked.len() - 4,
                load: 0
            })
        );
    }
}
