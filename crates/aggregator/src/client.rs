//! A request to an aggregator that is running, over TCP or a unix socket.

use std::time::Duration;

use anyhow::bail;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Listen;

/// Sends the request there and reads the answer whole. It gives up where connecting and the whole
/// answer together take longer than `within`.
pub async fn ask(
    address: &Listen,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let answer = answer(address, request, within).await?;
    Ok((answer.status(), answer.into_body()))
}

/// The same, with the answer's headers.
pub async fn answer(
    address: &Listen,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> anyhow::Result<Response<Bytes>> {
    let exchange = async {
        match address {
            Listen::Tcp(address) => exchange(TcpStream::connect(address).await?, request).await,
            Listen::Unix(path) => exchange(UnixStream::connect(path).await?, request).await,
        }
    };
    match tokio::time::timeout(within, exchange).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {} s", within.as_secs()),
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Its error, if any, is that of the answer.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}
