//! Recorded exchanges through the real Envoy, where such lie beside the project: every unambiguous
//! one must end in the ledger as what it carried, however its body is cut, and pass unchanged.

use tollmesh_tests::artifacts::{self, Artifacts};
use tollmesh_tests::replay::replay;

#[test]
fn every_recording_is_metered_right_however_it_is_cut() {
    let file = artifacts::root().join("../shared/corpus/exchanges.jsonl");
    if !file.is_file() {
        eprintln!("SKIPPED, nothing was checked: no {}", file.display());
        return;
    }
    let Some(artifacts) = Artifacts::find_or_skip() else {
        return;
    };
    for chunk in [None, Some(1), Some(7)] {
        let is_full = replay(&artifacts, &file, &[], chunk).expect("the replay runs");
        assert!(
            is_full,
            "by {chunk:?} bytes: the table above says which are wrong"
        );
    }
}
