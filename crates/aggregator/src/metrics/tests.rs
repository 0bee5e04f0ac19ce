//! The exposition as a whole.

use super::*;

#[test]
fn drops_are_counted_once_a_vm() {
    let metrics = Metrics::new().unwrap();
    for (vm, dropped_total) in [("a", 5), ("a", 5), ("a", 3), ("b", 2), ("a", 6), ("c", 0)] {
        metrics.dropped(vm, dropped_total);
    }
    assert_eq!(metrics.events_dropped_total.get(), 8);
}
