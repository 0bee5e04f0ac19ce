//! Names for events that no other filter, worker or restart will give.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// Gives out event ids: the random name of this VM, and a counter.
#[derive(Debug)]
pub struct EventIds {
    vm: String,
    next: Cell<u64>,
}

impl EventIds {
    /// A source of ids with a name drawn from the host's randomness, by way of the seeds that the
    /// standard library draws for its hash maps.
    pub fn random() -> EventIds {
        let draw = || RandomState::new().hash_one(0_u8);
        EventIds::named(format!("{:016x}{:016x}", draw(), draw()))
    }

    /// A source of ids with that name.
    pub fn named(vm: String) -> EventIds {
        EventIds {
            vm,
            next: Cell::new(0),
        }
    }

    /// The name of this VM.
    pub fn vm(&self) -> &str {
        &self.vm
    }

    /// An id that was not given before.
    pub fn next(&self) -> String {
        let n = self.next.get();
        self.next.set(n.wrapping_add(1));
        format!("{}-{n:x}", self.vm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_within_and_between_vms() {
        let (a, b) = (EventIds::random(), EventIds::random());
        assert_ne!(a.vm(), b.vm());
        assert_eq!(a.vm().len(), 32);
        assert_eq!(a.next(), format!("{}-0", a.vm()));
        assert_eq!(a.next(), format!("{}-1", a.vm()));
    }
}
