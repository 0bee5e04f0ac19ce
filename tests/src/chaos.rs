//! A TCP proxy between Envoy and the aggregator that can be told to misbehave.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The most of what was sent that is remembered, bytes: tests that look at it send less, and
/// tests that send more do not look.
const HEARD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What came from Envoy, by connections that may speak at once.
type Heard = Arc<Mutex<Vec<u8>>>;

/// What the proxy does to connections, from the moment it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes pass.
    None,
    /// Answers come so much later than the aggregator sent them.
    Slow(Duration),
    /// Connections are taken, and nothing is ever read or said.
    HalfOpen,
    /// Requests pass, and the connection breaks as soon as an answer wants to come back: the
    /// aggregator has the batch, the filter does not know it.
    LosesAnswers,
    /// Connections are broken as soon as they are made.
    Refuses,
}

/// The proxy.
#[derive(Debug)]
pub struct Chaos {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    n_connections: Arc<AtomicU64>,
    heard: Heard,
    accepting: JoinHandle<()>,
}

impl Chaos {
    /// Stands before whoever listens at `target`, with no fault yet.
    pub async fn before(target: SocketAddr) -> anyhow::Result<Chaos> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the chaos proxy cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let (fault, told) = watch::channel(Fault::None);
        let n_connections = Arc::new(AtomicU64::new(0));
        let heard = Heard::default();
        let accepting = tokio::spawn(accept(
            listener,
            target,
            told,
            Arc::clone(&n_connections),
            Arc::clone(&heard),
        ));
        Ok(Chaos {
            address,
            fault,
            n_connections,
            heard,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Misbehaves so from now on; connections of the time before are broken.
    pub fn now(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Every byte that Envoy has sent, headers and events, the first 16 MiB.
    pub fn heard(&self) -> Vec<u8> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.clone()
    }

    /// How many connections were made to it.
    pub fn n_connections(&self) -> u64 {
        self.n_connections.load(Ordering::Relaxed)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    told: watch::Receiver<Fault>,
    n_connections: Arc<AtomicU64>,
    heard: Heard,
) {
    loop {
        let Ok((near, _)) = listener.accept().await else {
            continue;
        };
        n_connections.fetch_add(1, Ordering::Relaxed);
        let mut told = told.clone();
        let fault = *told.borrow_and_update();
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            tokio::select! {
                () = relay(near, target, fault, &heard) => {}
                _ = told.changed() => {}
            }
        });
    }
}

async fn relay(mut near: TcpStream, target: SocketAddr, fault: Fault, heard: &Heard) {
    match fault {
        Fault::Refuses => return,
        Fault::HalfOpen => std::future::pending().await,
        Fault::None | Fault::Slow(_) | Fault::LosesAnswers => {}
    }
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    let (mut near_in, mut near_out) = near.split();
    let (mut far_in, mut far_out) = far.split();
    let there = requests(&mut near_in, &mut far_out, heard);
    let back = answers(&mut far_in, &mut near_out, fault);
    tokio::select! {
        _ = there => {}
        _ = back => {}
    }
}

async fn requests(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    heard: &Heard,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            let room = HEARD_BYTES_MAX.saturating_sub(heard.len());
            heard.extend_from_slice(&buffer[..n.min(room)]);
        }
        to.write_all(&buffer[..n]).await?;
    }
}

async fn answers(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    fault: Fault,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        match fault {
            _ if n == 0 => return Ok(()),
            Fault::LosesAnswers => return Ok(()),
            Fault::Slow(by) => tokio::time::sleep(by).await,
            Fault::None | Fault::HalfOpen | Fault::Refuses => {}
        }
        to.write_all(&buffer[..n]).await?;
    }
}
