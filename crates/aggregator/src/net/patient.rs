//! A connection that is cut where its client takes nothing of what is written, for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// An answer that is not read holds memory and a place. Whoever reads at all makes progress within
/// seconds; TCP's own patience would be a quarter of an hour.
const STALLED_MAX: Duration = Duration::from_secs(12);

/// A stream whose writes fail after [`STALLED_MAX`] without progress.
pub struct Patient<S> {
    stream: S,
    stalled_max: Duration,
    /// Runs from when the client would not take more.
    stalled: Option<Pin<Box<Sleep>>>,
}

// === impl Patient ===

impl<S> Patient<S> {
    pub fn new(stream: S) -> Patient<S> {
        Patient {
            stream,
            stalled_max: STALLED_MAX,
            stalled: None,
        }
    }

    /// What a write said; an error in place of waiting where it has been waited for too long.
    fn unless_stalled<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled_max = self.stalled_max;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stalled_max)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_stalled(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_cut() {
        let (near, mut far) = duplex(4);
        let mut near = Patient::new(near);
        near.stalled_max = Duration::from_millis(1);
        let error = near.write_all(b"never read").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(near);
        let mut taken = Vec::new();
        far.read_to_end(&mut taken).await.unwrap();
        assert_eq!(taken, b"neve");
    }

    #[tokio::test]
    async fn who_takes_a_byte_begins_anew() {
        let (near, mut far) = duplex(4);
        let mut near = Patient::new(near);
        near.write_all(b"full").await.unwrap();
        for _ in 0..3 {
            let mut write = async |bytes: &'static [u8]| {
                poll_fn(|context| Poll::Ready(Pin::new(&mut near).poll_write(context, bytes))).await
            };
            assert!(write(b"x").await.is_pending());
            far.read_u8().await.unwrap();
            assert!(write(b"x").await.is_ready());
            assert!(near.stalled.is_none());
        }
    }
}
