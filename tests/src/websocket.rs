//! A provider and an app that speak WebSocket (RFC 6455) on bare sockets, from one script.
//!
//! Both check every byte that comes: what one side wrote is what the other side gets.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::provider::REQUEST_ID;

/// The example of RFC 6455, 1.3: a client's key, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The masking key of every frame of the app's.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// How long a side waits for the other's next byte before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest head of a request or response that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Who writes a line of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The app.
    Client,
    /// The provider.
    Server,
}

/// What the two sides write, in turn, once the handshake is done.
#[derive(Clone, Debug, Default)]
pub struct Script {
    lines: Vec<(Side, Vec<u8>)>,
    piece: Option<usize>,
    extensions: Option<String>,
    refusal: Option<(u16, String)>,
    cuts: bool,
}

impl Script {
    /// Nothing is said.
    pub fn new() -> Script {
        Script::default()
    }

    /// One text message in one frame.
    pub fn text(self, side: Side, text: &str) -> Script {
        self.frame(side, 0x81, text.as_bytes())
    }

    /// One message in frames of two opcodes, cut in the middle, with a ping between them.
    pub fn in_pieces(self, side: Side, opcode: u8, message: &str) -> Script {
        let (head, tail) = message.as_bytes().split_at(message.len() / 2);
        self.frame(side, opcode, head)
            .frame(side, 0x89, b"still there?")
            .frame(side, 0x80, tail)
    }

    /// One frame, its first byte as it is on the wire.
    pub fn frame(mut self, side: Side, first: u8, payload: &[u8]) -> Script {
        self.lines.push((side, frame(side, first, payload)));
        self
    }

    /// Both sides write pieces of so many bytes.
    pub fn in_writes_of(mut self, n: usize) -> Script {
        self.piece = Some(n);
        self
    }

    /// The provider accepts an extension.
    pub fn extended(mut self, extensions: &str) -> Script {
        self.extensions = Some(extensions.to_string());
        self
    }

    /// The provider does not switch protocols, and answers JSON.
    pub fn refused(mut self, status: u16, body: &str) -> Script {
        self.refusal = Some((status, body.to_string()));
        self
    }

    /// The app hangs up at the end without a word.
    pub fn cut(mut self) -> Script {
        self.cuts = true;
        self
    }

    fn play(&self, own: Side, mut stream: TcpStream) -> anyhow::Result<()> {
        for (i, (side, bytes)) in self.lines.iter().enumerate() {
            if *side == own {
                for piece in bytes.chunks(self.piece.unwrap_or(usize::MAX)) {
                    stream.write_all(piece)?;
                }
                continue;
            }
            let mut got = vec![0; bytes.len()];
            let read = stream.read_exact(&mut got);
            read.with_context(|| format!("{own:?}: line {i} did not come whole"))?;
            ensure!(got == *bytes, "{own:?}: line {i} came changed");
        }
        Ok(())
    }
}

/// A frame as RFC 6455, 5.2 draws it; an app's is masked.
fn frame(side: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    let masked = if side == Side::Client { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(n @ 0..=125), _) => bytes.push(masked | n),
        (_, Ok(n)) => {
            bytes.push(masked | 126);
            bytes.extend(n.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    match side {
        Side::Server => bytes.extend(payload),
        Side::Client => {
            bytes.extend(MASK);
            let keys = MASK.iter().cycle();
            bytes.extend(payload.iter().zip(keys).map(|(byte, key)| byte ^ key));
        }
    }
    bytes
}

/// A provider on a loopback port that plays each connection by the script of its request id.
#[derive(Clone, Debug)]
pub struct Provider {
    address: SocketAddr,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
}

impl Provider {
    /// Starts to listen; it stops with the process.
    pub fn start() -> anyhow::Result<Provider> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("the provider cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let scripts = Arc::default();
        let provider = Provider { address, scripts };
        let accepting = provider.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let provider = accepting.clone();
                // What goes wrong here, the app sees as a missing or a changed line.
                std::thread::spawn(move || provider.serve(stream));
            }
        });
        Ok(provider)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An app's connection through the Envoy at `envoy`, from handshake to hang-up; gives the head
    /// of the response. `head` are further lines of the request's head.
    pub fn talk(
        &self,
        envoy: SocketAddr,
        request_id: &str,
        head: &str,
        script: &Script,
    ) -> anyhow::Result<String> {
        let (answer, mut stream) = self.hold(envoy, request_id, head, script)?;
        if !script.cuts {
            stream.shutdown(Shutdown::Write)?;
            // The provider closes in turn; whatever it says is done with.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Ok(answer)
    }

    /// As [`Provider::talk`], but the connection lives until the stream is dropped.
    pub fn hold(
        &self,
        envoy: SocketAddr,
        request_id: &str,
        head: &str,
        script: &Script,
    ) -> anyhow::Result<(String, TcpStream)> {
        let scripts = self.scripts.lock();
        let mut scripts = scripts.unwrap_or_else(PoisonError::into_inner);
        scripts.insert(request_id.to_string(), script.clone());
        drop(scripts);
        let mut stream = connect(envoy)?;
        let lines = [
            head,
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            &format!("Sec-WebSocket-Key: {KEY}\r\n{REQUEST_ID}: {request_id}\r\n\r\n"),
        ];
        stream.write_all(lines.concat().as_bytes())?;
        let answer = read_head(&mut stream)?;
        if answer.starts_with("HTTP/1.1 101") {
            ensure!(answer.contains(ACCEPT), "a wrong handshake: {answer}");
            script.play(Side::Client, stream.try_clone()?)?;
        }
        Ok((answer, stream))
    }

    fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let head = read_head(&mut stream)?;
        let id = value(&head, REQUEST_ID).unwrap_or_default();
        let scripts = self.scripts.lock();
        let script = scripts
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned();
        let script = script.with_context(|| format!("no script for {id}"))?;
        if let Some((status, body)) = &script.refusal {
            let n = body.len();
            let head = "Content-Type: application/json\r\nConnection: close\r\nContent-Length";
            write!(stream, "HTTP/1.1 {status} No\r\n{head}: {n}\r\n\r\n{body}")?;
            return Ok(());
        }
        ensure!(value(&head, "sec-websocket-key") == Some(KEY), "no key");
        let extensions = script.extensions.iter();
        let extensions: String = extensions
            .map(|value| format!("Sec-WebSocket-Extensions: {value}\r\n"))
            .collect();
        write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n{extensions}\r\n"
        )?;
        script.play(Side::Server, stream.try_clone()?)?;
        // Until the app hangs up.
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

fn connect(envoy: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(envoy).with_context(|| format!("Envoy is not at {envoy}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn read_head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX || stream.read(&mut byte)? == 0 {
            bail!("no head, but {:?}", String::from_utf8_lossy(&head));
        }
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The value of a header in a head.
pub fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let pairs = head.lines().filter_map(|line| line.split_once(':'));
    let mut values = pairs.filter(|(n, _)| n.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim())
}
