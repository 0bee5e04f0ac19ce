//! Literal bytes on an HTTP/1 wire: a provider and an app that say exactly what they are told.
//!
//! For what an HTTP library will not write, or not at the moment that a test needs: informational
//! responses, answers that never come, apps that wait for leave to go on.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::fact;

/// A provider that answers its first request with the first reply, and so on; the last reply
/// serves all that follow. An empty reply is silence; one that says `connection: close` is ended by
/// that.
#[derive(Clone, Debug)]
pub struct LiteralProvider {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl LiteralProvider {
    /// Starts to listen, until the process ends.
    ///
    /// # Panics
    /// Where loopback has no port left.
    pub fn start(replies: &[&[u8]]) -> LiteralProvider {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a port");
        let address = listener.local_addr().expect("a bound listener");
        let replies: Arc<[Vec<u8>]> = replies.iter().map(|reply| reply.to_vec()).collect();
        let provider = LiteralProvider {
            address,
            requests: Arc::default(),
        };
        let told = provider.clone();
        let n_begun = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (told, replies) = (told.clone(), Arc::clone(&replies));
                let n_begun = Arc::clone(&n_begun);
                thread::spawn(move || told.serve(stream, &replies, &n_begun));
            }
        });
        provider
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, head and body as they came.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, mut stream: TcpStream, replies: &[Vec<u8>], n_begun: &AtomicUsize) {
        while let Ok(request) = read_message(&mut stream) {
            let n = n_begun.fetch_add(1, Ordering::Relaxed);
            let requests = self.requests.lock();
            let mut requests = requests.unwrap_or_else(PoisonError::into_inner);
            requests.push(request);
            drop(requests);
            let reply = replies.get(n).or(replies.last());
            let reply = reply.map_or(&[][..], Vec::as_slice);
            let closes = String::from_utf8_lossy(reply).contains("\r\nconnection: close\r\n");
            if stream.write_all(reply).is_err() || closes {
                return;
            }
        }
    }
}

/// An app's connection.
#[derive(Debug)]
pub struct LiteralApp {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl LiteralApp {
    /// Connects.
    pub fn to(address: SocketAddr) -> anyhow::Result<LiteralApp> {
        let stream = TcpStream::connect(address).with_context(|| format!("no {address}"))?;
        stream.set_read_timeout(Some(fact::PATIENCE))?;
        Ok(LiteralApp {
            stream,
            heard: Vec::new(),
        })
    }

    /// Says these bytes.
    pub fn says(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Listens until all that was heard has `part` in it; answers all of it.
    pub fn hears(&mut self, part: &str) -> anyhow::Result<String> {
        let mut buffer = [0; 4096];
        loop {
            let heard = String::from_utf8_lossy(&self.heard).into_owned();
            if heard.contains(part) {
                return Ok(heard);
            }
            let n = self.stream.read(&mut buffer);
            let n = n.with_context(|| format!("no {part:?} in {heard:?}"))?;
            if n == 0 {
                bail!("hung up on after {heard:?}, without {part:?}");
            }
            self.heard.extend_from_slice(&buffer[..n]);
        }
    }

    /// Whether nothing beyond what was heard comes within `span`.
    pub fn hears_no_more_for(&mut self, span: Duration) -> anyhow::Result<bool> {
        self.stream.set_read_timeout(Some(span))?;
        let is_silent = match self.stream.read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ),
        };
        self.stream.set_read_timeout(Some(fact::PATIENCE))?;
        Ok(is_silent)
    }
}

/// One message to the end of its body, which a length or a last chunk tells (RFC 9112, 6.3).
fn read_message(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if is_whole(&message) {
            return Ok(message);
        }
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            bail!("hung up in a message");
        }
        message.extend_from_slice(&buffer[..n]);
    }
}

fn is_whole(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let field = |name| head.lines().find_map(|line| line.strip_prefix(name));
    if field("transfer-encoding: ").is_some() {
        return body.ends_with("0\r\n\r\n");
    }
    let length = field("content-length: ").and_then(|length| length.parse().ok());
    body.len() >= length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_framing_says() {
        for (message, expected) in [
            ("POST / HTTP/1.1\r\n", false),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{", false),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", true),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
                false,
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
                true,
            ),
        ] {
            assert_eq!(is_whole(message.as_bytes()), expected, "{message:?}");
        }
    }

    #[test]
    fn each_request_gets_its_reply() {
        let provider = LiteralProvider::start(&[b"one\n", b"two\n"]);
        let mut app = LiteralApp::to(provider.address()).expect("it listens");
        for reply in ["one\n", "two\n", "two\ntwo\n"] {
            app.says(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
            app.hears(reply).expect("it answers");
        }
        assert_eq!(provider.requests().len(), 3);
    }
}
