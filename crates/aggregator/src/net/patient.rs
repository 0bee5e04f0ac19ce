//! A connection that is cut where its client takes nothing of what is written, or too little, for too
//! long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// An answer that is not read holds memory and a place. Whoever reads at all makes progress within
/// seconds; TCP's own patience would be a quarter of an hour.
const STALLED_MAX: Duration = Duration::from_secs(12);

/// The least that a reader takes who keeps an answer waiting, in bytes a second, beyond the first
/// [`STALLED_MAX`]: a quarter of a megabit. One that reads by drips would hold it for ever.
const BYTES_PER_SECOND_MIN: u64 = 32 * 1024;

/// A stream whose writes fail after [`STALLED_MAX`] without progress, or with less of it than
/// [`BYTES_PER_SECOND_MIN`].
pub struct Patient<S> {
    stream: S,
    stalled_max: Duration,
    bytes_per_second_min: u64,
    /// Runs from when the client would not take more.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Since when something waits to be written, and what was written of it.
    waiting: Option<(Instant, u64)>,
}

// === impl Patient ===

impl<S> Patient<S> {
    pub fn new(stream: S) -> Patient<S> {
        Patient {
            stream,
            stalled_max: STALLED_MAX,
            bytes_per_second_min: BYTES_PER_SECOND_MIN,
            stalled: None,
            waiting: None,
        }
    }

    /// What a write said; an error in place of waiting where it has been waited for too long.
    fn unless_stalled(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = written {
            self.stalled = None;
            if let (Ok(n), Some((_, bytes))) = (&done, &mut self.waiting) {
                *bytes = bytes.saturating_add(*n as u64);
            }
            return Poll::Ready(done);
        }
        let until = self.until(Instant::now());
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Until when a client is waited for that takes nothing now.
    fn until(&mut self, now: Instant) -> Instant {
        let (since, bytes) = *self.waiting.get_or_insert((now, 0));
        let earned = Duration::from_secs(bytes / self.bytes_per_second_min);
        (since + self.stalled_max + earned).min(now + self.stalled_max)
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
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            // Asked for when nothing waits any more.
            self.waiting = None;
        }
        flushed
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
    async fn who_reads_by_drips_is_cut() {
        let (near, mut far) = duplex(4);
        let mut near = Patient::new(near);
        near.stalled_max = Duration::from_millis(300);
        near.bytes_per_second_min = u64::MAX;
        let drops = async {
            let mut n = 0_u64;
            while far.read_u8().await.is_ok() {
                n += 1;
                tokio::task::yield_now().await;
            }
            n
        };
        let answer = vec![0; 64 << 20];
        let writes = async move {
            let error = near.write_all(&answer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        };
        let ((), n) = tokio::join!(writes, drops);
        assert!(n > 4, "{n}");
    }

    #[tokio::test]
    async fn who_reads_slowly_is_waited_for_by_what_it_takes() {
        let mut patient = Patient::new(());
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(patient.until(begun), after(12));
        assert_eq!(patient.until(after(5)), after(12));
        patient.waiting = Some((begun, 10 * BYTES_PER_SECOND_MIN));
        assert_eq!(patient.until(after(5)), after(17));
        assert_eq!(patient.until(after(15)), after(22));
    }

    #[tokio::test]
    async fn what_is_written_whole_is_behind() {
        let (near, mut far) = duplex(4);
        let mut near = Patient::new(near);
        near.write_all(b"full").await.unwrap();
        let mut write = poll_fn(|context| {
            Poll::Ready(Pin::new(&mut near).poll_write(context, b"x").is_pending())
        });
        assert!(Pin::new(&mut write).await);
        assert!(near.waiting.is_some());
        far.read_u8().await.unwrap();
        near.write_all(b"x").await.unwrap();
        near.flush().await.unwrap();
        assert!(near.waiting.is_none());
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
