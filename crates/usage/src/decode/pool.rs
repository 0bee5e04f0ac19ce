//! The memory that all decoders of one VM share.

use std::cell::Cell;
use std::rc::Rc;

use crate::scan::Trouble;

/// What decoders may allocate together, in bytes, where the caller sets no other bound.
pub const POOL_BYTES_MAX: u64 = 64 << 20;

/// A bound on what decoders allocate together; clones share it.
///
/// A decoder reserves what its window may take before it allocates it. A body for whose decoder
/// nothing is left passes unread, as [`Trouble::DecoderBudget`].
#[derive(Clone, Debug)]
pub struct DecoderPool {
    n_left: Rc<Cell<u64>>,
    /// What it is a part of, whose bytes it takes as well.
    whole: Option<Rc<DecoderPool>>,
}

impl Default for DecoderPool {
    fn default() -> DecoderPool {
        DecoderPool::of(POOL_BYTES_MAX)
    }
}

impl DecoderPool {
    /// A pool of that many bytes.
    pub fn of(n_bytes: u64) -> DecoderPool {
        DecoderPool {
            n_left: Rc::new(Cell::new(n_bytes)),
            whole: None,
        }
    }

    /// A part of this pool that never takes more than that many bytes of it, so that whoever has the
    /// part cannot use up what others need.
    pub fn part(&self, n_bytes: u64) -> DecoderPool {
        DecoderPool {
            n_left: Rc::new(Cell::new(n_bytes)),
            whole: Some(Rc::new(self.clone())),
        }
    }

    /// Bytes that are not reserved.
    pub fn n_bytes_left(&self) -> u64 {
        self.n_left.get()
    }

    fn take(&self, n_bytes: u64) -> Result<(), Trouble> {
        let n_left = self.n_left.get().checked_sub(n_bytes);
        let n_left = n_left.ok_or(Trouble::DecoderBudget)?;
        if let Some(whole) = &self.whole {
            whole.take(n_bytes)?;
        }
        self.n_left.set(n_left);
        Ok(())
    }

    fn give_back(&self, n_bytes: u64) {
        let n_left = self.n_left.get();
        self.n_left.set(n_left.saturating_add(n_bytes));
        if let Some(whole) = &self.whole {
            whole.give_back(n_bytes);
        }
    }

    /// Sets bytes aside until the reservation is dropped.
    pub(super) fn reserve(&self, n_bytes: u64) -> Result<Reservation, Trouble> {
        let mut reservation = Reservation {
            pool: self.clone(),
            n_bytes: 0,
        };
        reservation.raise_to(n_bytes)?;
        Ok(reservation)
    }
}

/// Bytes of a pool that a decoder may allocate.
#[derive(Debug)]
pub(super) struct Reservation {
    pool: DecoderPool,
    n_bytes: u64,
}

impl Reservation {
    /// Sets so many bytes aside in all, where that is more than before.
    pub(super) fn raise_to(&mut self, n_bytes: u64) -> Result<(), Trouble> {
        let n_more = n_bytes.saturating_sub(self.n_bytes);
        self.pool.take(n_more)?;
        self.n_bytes += n_more;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.give_back(self.n_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_given_back() {
        let pool = DecoderPool::of(100);
        let mut first = pool.reserve(50).unwrap();
        assert_eq!(first.raise_to(101), Err(Trouble::DecoderBudget));
        assert_eq!(first.raise_to(60), Ok(()));
        assert_eq!(first.raise_to(10), Ok(()));
        assert_eq!(pool.reserve(41).err(), Some(Trouble::DecoderBudget));
        assert_eq!(pool.clone().n_bytes_left(), 40);
        drop(first);
        assert_eq!(pool.n_bytes_left(), 100);
    }

    #[test]
    fn a_part_takes_no_more_than_it_is_and_no_more_than_there_is() {
        let pool = DecoderPool::of(100);
        let part = pool.part(60);
        assert_eq!(part.reserve(61).err(), Some(Trouble::DecoderBudget));
        let first = part.reserve(40).unwrap();
        assert_eq!((part.n_bytes_left(), pool.n_bytes_left()), (20, 60));
        let other = pool.reserve(50).unwrap();
        assert_eq!(part.reserve(11).err(), Some(Trouble::DecoderBudget));
        assert_eq!((part.n_bytes_left(), pool.n_bytes_left()), (20, 10));
        drop((first, other));
        assert_eq!((part.n_bytes_left(), pool.n_bytes_left()), (60, 100));
    }
}
