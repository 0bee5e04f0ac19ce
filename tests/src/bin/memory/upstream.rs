//! A provider that stops in the middle of every answer until it is told to go on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::answer::Answer;

/// Connections that may wait to be taken: all streams of a case come at once.
const BACKLOG: u32 = 4096;

/// What tells every answer to go on.
pub type Go = watch::Sender<bool>;

/// Starts to listen, and gives every request that answer.
pub async fn start(answer: Arc<Answer>) -> anyhow::Result<(SocketAddr, Go)> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener: TcpListener = socket
        .listen(BACKLOG)
        .context("the upstream cannot listen on loopback")?;
    let address = listener.local_addr()?;
    let (go, may_go) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, Arc::clone(&answer), may_go.clone()));
            }
        }
    });
    Ok((address, go))
}

async fn serve(
    mut stream: TcpStream,
    answer: Arc<Answer>,
    mut may_go: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut seen = Vec::with_capacity(2048);
    while !is_whole(&seen) {
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(answer.head().as_bytes()).await?;
    stream.write_all(&answer.opening).await?;
    may_go.wait_for(|go| *go).await?;
    for _ in 0..answer.n_pieces {
        stream.write_all(&answer.piece).await?;
    }
    stream.write_all(&answer.closing).await?;
    // The end of the connection is the end of the body.
    stream.shutdown().await?;
    Ok(())
}

/// Whether a request is all there; one that the filter may edit goes on without a length.
fn is_whole(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    match length.and_then(|length| length.trim().parse::<usize>().ok()) {
        Some(length) => body.len() >= length,
        None => body.ends_with("0\r\n\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_when_its_body_is() {
        assert!(is_whole(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"));
        assert!(!is_whole(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{"));
        assert!(is_whole(b"POST / HTTP/1.1\r\n\r\n2\r\n{}\r\n0\r\n\r\n"));
        assert!(!is_whole(b"POST / HTTP/1.1\r\n\r\n2\r\n{}\r\n"));
    }
}
