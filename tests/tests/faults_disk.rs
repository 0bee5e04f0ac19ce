//! The aggregator's disk full, failing or locked: traffic goes on, it says so, and the books are
//! right afterwards, without a restart.

use rusqlite::Connection;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::fault::{Errno, Operation};
use tollmesh_tests::{Books, Mesh, artifacts};

/// Calls between two faults.
const N_CALLS: usize = 6;

/// Waits until `/readyz` answers with that status; what it says.
#[track_caller]
fn readiness_becomes(mesh: &Mesh, status: u16) -> String {
    eventually("readiness", || match mesh.aggregator().readiness() {
        Ok((found, body)) if found == status => Ok(body),
        other => Err(format!("{other:?}")),
    })
}

/// Asserts that the aggregator says how it is and shows its metrics, while it cannot write.
#[track_caller]
fn is_unwell_and_says_so(mesh: &Mesh) {
    let body = readiness_becomes(mesh, 503);
    assert!(body.contains("ledger.db"), "{body}");
    let metrics = eventually("the gauge", || {
        let metrics = mesh.aggregator().metrics().map_err(|e| e.to_string())?;
        match metrics.sum("tollmesh_ledger_writable", &[]) {
            0.0 => Ok(metrics),
            other => Err(other.to_string()),
        }
    });
    assert!(metrics.sum("tollmesh_requests_total", &[]) > 0.0);
}

/// The process id of the aggregator, which must stay the same: nothing here takes a restart.
fn process(mesh: &Mesh) -> u32 {
    mesh.aggregator().process().expect("it runs").id()
}

#[track_caller]
fn recovers_by_itself(mesh: &Mesh, books: &Books, was: u32) {
    readiness_becomes(mesh, 200);
    books.are_kept_by(mesh);
    assert_eq!(process(mesh), was, "it was started anew");
    let state = std::fs::read_dir(mesh.aggregator().state_dir()).expect("a directory");
    let names = state.map(|file| file.expect("a file").file_name());
    let aside = names.filter(|name| name.to_string_lossy().contains("damaged"));
    assert_eq!(aside.count(), 0, "a sound ledger was set aside");
}

#[test]
fn a_full_disk_is_told_and_got_over() {
    let built = Mesh::built().on_small_disk("3m");
    // Without the right to mount, the injected ENOSPC below is what there is.
    let artifacts = match artifacts::Artifacts::find() {
        Ok(artifacts) => artifacts,
        Err(missing) => return artifacts::skip(&missing),
    };
    let mesh = match built.start_with(&artifacts) {
        Ok(mesh) => mesh,
        Err(error) if format!("{error:#}").contains("cannot mount") => {
            return artifacts::skip(&format!("{error:#}"));
        }
        Err(error) => panic!("the mesh does not start: {error:#}"),
    };
    let books = Books::default();
    books.call(&mesh, N_CALLS);
    books.are_kept_by(&mesh);
    let was = process(&mesh);
    // What the ledger's log has allocated takes some calls more; and it is cut after each failure,
    // which gives room back for a while.
    eventually("the disk is too small", || {
        mesh.small_disk().fill();
        books.call(&mesh, 20);
        match mesh.aggregator().readiness()? {
            (503, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    mesh.small_disk().fill();
    books.call(&mesh, 20);
    is_unwell_and_says_so(&mesh);
    mesh.small_disk().free();
    recovers_by_itself(&mesh, &books, was);
}

/// Lets an operation fail from the n-th on, for several n, under calls.
fn fails_and_recovers(operation: Operation, errno: Errno) {
    let Some(mesh) = Mesh::built().with_faults().start() else {
        return;
    };
    let books = Books::default();
    books.call(&mesh, N_CALLS);
    books.are_kept_by(&mesh);
    let was = process(&mesh);
    for n_passing in [0, 1, 2, 3, 5, 8, 13] {
        let n_failed = mesh.faults().n_failed(operation);
        mesh.faults().fail(operation, errno, n_passing);
        eventually("a failure", || {
            books.call(&mesh, N_CALLS);
            match mesh.faults().n_failed(operation) - n_failed {
                0 => Err("none".to_string()),
                n => Ok(n),
            }
        });
        is_unwell_and_says_so(&mesh);
        mesh.faults().heal();
        readiness_becomes(&mesh, 200);
    }
    recovers_by_itself(&mesh, &books, was);
    // What was recorded around the failures is durable as well.
    mesh.aggregator()
        .restart()
        .expect("it starts after SIGKILL");
    books.are_kept_by(&mesh);
}

#[test]
fn writes_that_find_no_space_lose_nothing() {
    fails_and_recovers(Operation::Write, Errno::NoSpace);
}

#[test]
fn writes_that_fail_lose_nothing() {
    fails_and_recovers(Operation::Write, Errno::Io);
}

#[test]
fn syncs_that_fail_lose_nothing() {
    fails_and_recovers(Operation::Sync, Errno::Io);
}

#[test]
fn a_locked_ledger_is_waited_for() {
    let Some(mesh) = Mesh::start() else { return };
    let books = Books::default();
    books.call(&mesh, N_CALLS);
    books.are_kept_by(&mesh);
    let was = process(&mesh);
    let ledger = mesh.aggregator().state_dir().join("ledger.db");
    let other = Connection::open(ledger).expect("the file opens");
    other.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    books.call(&mesh, N_CALLS);
    is_unwell_and_says_so(&mesh);
    books.call(&mesh, N_CALLS);
    other.execute_batch("ROLLBACK").expect("the lock goes");
    recovers_by_itself(&mesh, &books, was);
}
