//! One small HTTP request to a child: Envoy's admin interface, the aggregator's two sides.

use std::net::SocketAddr;

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// `content-type`.
    pub content_type: String,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// `GET path` of whoever listens there.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    send(address, "GET", path, &[], Bytes::new()).await
}

/// `POST path` with a JSON body.
pub async fn post(address: SocketAddr, path: &str, body: Bytes) -> anyhow::Result<Reply> {
    send(
        address,
        "POST",
        path,
        &[("content-type", "application/json")],
        body,
    )
    .await
}

/// Any request, on a connection of its own.
pub async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> anyhow::Result<Reply> {
    let asked = || format!("{method} http://{address}{path}");
    let stream = TcpStream::connect(address).await.with_context(asked)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .with_context(asked)?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).with_context(asked)?;
    let response = sender.send_request(request).await.with_context(asked)?;
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_string();
    let body = response
        .into_body()
        .collect()
        .await
        .with_context(asked)?
        .to_bytes();
    Ok(Reply {
        status,
        content_type,
        body,
    })
}
