//! Who takes over what an instance that has to go has not delivered: another one of the same VM.
//!
//! A change of the configuration makes a new instance before the old one goes. The host knows those
//! that go by their configurations alone, and of two that are equal it forgets the first with all that
//! waits there (`WasmBase::startShutdown` and its `pending_done_` in
//! <https://github.com/proxy-wasm/proxy-wasm-cpp-host/blob/main/src/wasm.cc>). So as little as can be
//! is left to them.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::queue::Queue;

/// An instance's events.
type Events = RefCell<Queue>;

thread_local! {
    /// The instances of this VM, which has one thread, that are configured and stay: Envoy's cluster of
    /// the aggregator that each delivers to, and what it has for it.
    static STAYING: RefCell<Vec<(String, Weak<Events>)>> = const { RefCell::new(Vec::new()) };
}

/// Has an instance take over from others that deliver to that cluster.
pub fn stays(cluster: &str, events: &Rc<Events>) {
    goes(events);
    let entry = (cluster.to_owned(), Rc::downgrade(events));
    STAYING.with_borrow_mut(|staying| staying.push(entry));
}

/// Has an instance take over nothing any more.
pub fn goes(events: &Rc<Events>) {
    STAYING.with_borrow_mut(|staying| {
        staying.retain(|(_, other)| other.strong_count() > 0 && !is(other, events));
    });
}

/// Gives what an instance has not delivered to the newest other one that delivers to the same
/// cluster; how many events were dropped for it. Where there is none, it keeps them.
pub fn hand_over(cluster: &str, events: &Rc<Events>) -> u64 {
    if events.borrow().is_empty() {
        return 0;
    }
    match heir(cluster, events) {
        Some(heir) => heir.borrow_mut().take_over(&mut events.borrow_mut()),
        None => 0,
    }
}

fn heir(cluster: &str, events: &Rc<Events>) -> Option<Rc<Events>> {
    STAYING.with_borrow(|staying| {
        let others = staying.iter().rev();
        let mut others = others.filter(|(to, other)| to == cluster && !is(other, events));
        others.find_map(|(_, other)| other.upgrade())
    })
}

fn is(other: &Weak<Events>, events: &Rc<Events>) -> bool {
    std::ptr::eq(other.as_ptr(), Rc::as_ptr(events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_stays_and_speaks_to_the_same_aggregator_takes_over() {
        let [old, heir, leaving, other, gone] =
            [1, 2, 3, 4, 5].map(|seed| Rc::new(RefCell::new(Queue::new(seed))));
        old.borrow_mut().push("1");
        assert_eq!(hand_over("a", &old), 0);
        assert!(!old.borrow().is_empty(), "there is nobody");
        for events in [&old, &heir, &leaving, &gone] {
            stays("a", events);
        }
        stays("b", &other);
        drop(gone);
        goes(&leaving);
        goes(&old);
        assert_eq!(hand_over("a", &old), 0);
        assert!(old.borrow().is_empty());
        assert!(!heir.borrow().is_empty());
        for events in [&other, &leaving] {
            assert!(events.borrow().is_empty());
        }
        // Who is alone keeps what it has, also where it stays.
        assert_eq!(hand_over("a", &heir), 0);
        assert!(!heir.borrow().is_empty());
        // Who delivers elsewhere from now on takes nothing for here.
        stays("a", &old);
        stays("c", &old);
        assert_eq!(hand_over("a", &heir), 0);
        assert!(old.borrow().is_empty());
    }
}
