//! The ledger's files cut short and altered: what is shown stays right, what is damaged is set
//! aside, and the access log brings back what was in it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Books, Mesh};

/// Calls before and after each damage: some pages of rows.
const N_CALLS: usize = 25;
/// SQLite's page size where nothing else is said. <https://www.sqlite.org/pgszchng2016.html>
const PAGE_BYTES: u64 = 4096;

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// It ends here, in hundredths of its length.
    CutAt(u64),
    /// These bytes of each page after the first are turned over.
    FlippedInPages(u64, u64),
    /// These bytes of the file are turned over.
    Flipped(u64, u64),
}

impl Damage {
    fn to(self, path: &Path) {
        let file = File::options().read(true).write(true).open(path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let n_bytes = file.metadata().expect("its length").len();
        assert!(n_bytes > PAGE_BYTES, "{} has no content", path.display());
        match self {
            Damage::CutAt(percent) => file.set_len(n_bytes * percent / 100).expect("it is cut"),
            Damage::Flipped(from, n) => flip(&file, from, n),
            Damage::FlippedInPages(from, n) => {
                for page in 1..n_bytes / PAGE_BYTES {
                    flip(&file, page * PAGE_BYTES + from, n);
                }
            }
        }
    }
}

fn flip(file: &File, from: u64, n: u64) {
    let mut bytes = vec![0; n as usize];
    file.read_exact_at(&mut bytes, from)
        .expect("they are there");
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, from).expect("they are altered");
}

fn state_file(mesh: &Mesh, name: &str) -> PathBuf {
    mesh.aggregator().state_dir().join(name)
}

/// The number of the file that was set aside last; older ones are deleted after a while.
fn last_set_aside(mesh: &Mesh) -> u64 {
    let names = fs::read_dir(mesh.aggregator().state_dir()).expect("a directory");
    let names = names.map(|file| file.expect("a file").file_name().into_string());
    let number = |name: String| name.strip_prefix("ledger.db.damaged-")?.parse().ok();
    names
        .filter_map(|name| number(name.expect("plain names")))
        .max()
        .unwrap_or(0)
}

/// How a ledger comes to be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// It was stopped, and its log is folded into the file.
    Stopped,
    /// It was killed, and its log lies beside it.
    Killed,
}

/// Damages a file of a ledger at rest; asserts that nothing wrong is ever shown, and that all comes
/// back from the access log. Whether the ledger was set aside.
fn at_rest(mesh: &Mesh, books: &Books, when: When, name: &str, damage: Damage) -> bool {
    let last_before = last_set_aside(mesh);
    match when {
        When::Stopped => mesh.aggregator().stop().expect("it stops"),
        When::Killed => mesh.aggregator().kill(),
    }
    damage.to(&state_file(mesh, name));
    mesh.aggregator()
        .restart()
        .expect("it starts whatever it finds");
    books.call(mesh, N_CALLS);
    // Questions may be what comes upon the damage, and the first of them may be refused for it.
    eventually("all is taken and the ledger answers", || {
        let n_sent = mesh.counted("events_sent");
        if n_sent != books.len() as u64 {
            return Err(format!("{n_sent} events sent of {}", books.len()));
        }
        let answer = mesh.ledger().rows().and_then(|_| mesh.ledger().spend());
        answer.map_err(|error| format!("{error:#}"))
    });
    books.contain_what_is_kept_by(mesh);
    let is_aside = last_set_aside(mesh) > last_before;
    if is_aside {
        let metrics = mesh.aggregator().metrics().expect("a scrape");
        assert_eq!(metrics.sum("tollmesh_ledger_set_aside", &[]), 1.0);
    }
    mesh.import_access_log(books.len());
    books.are_kept_by(mesh);
    is_aside
}

#[test]
fn a_file_damaged_at_rest_is_set_aside_and_comes_back_from_the_log() {
    let Some(mesh) = Mesh::start() else { return };
    let books = Books::default();
    books.call(&mesh, N_CALLS);
    books.are_kept_by(&mesh);
    for damage in [
        Damage::CutAt(50),
        Damage::CutAt(97),
        // The name of the format, and all of the header.
        Damage::Flipped(0, 16),
        Damage::Flipped(0, 100),
        // The kind of each page, and where its cells begin.
        Damage::FlippedInPages(0, 1),
        Damage::FlippedInPages(5, 2),
        // A byte inside of every page, and near its end: structure stays, content does not.
        Damage::FlippedInPages(2_900, 1),
        Damage::FlippedInPages(4_000, 1),
        // A page in the middle, whole.
        Damage::Flipped(3 * PAGE_BYTES, PAGE_BYTES),
    ] {
        let is_aside = at_rest(&mesh, &books, When::Stopped, "ledger.db", damage);
        assert!(is_aside, "{damage:?} was not found");
    }
}

#[test]
fn a_log_damaged_after_a_kill_never_shows_a_wrong_row() {
    let Some(mesh) = Mesh::start() else { return };
    let books = Books::default();
    books.call(&mesh, N_CALLS);
    books.are_kept_by(&mesh);
    for damage in [
        Damage::CutAt(50),
        Damage::CutAt(99),
        Damage::Flipped(0, 4),
        // A frame's checksum, and a byte of its page.
        Damage::Flipped(32 + 16, 1),
        Damage::Flipped(32 + 24 + 3 * (24 + PAGE_BYTES) + 700, 1),
    ] {
        at_rest(&mesh, &books, When::Killed, "ledger.db-wal", damage);
    }
}

#[test]
fn a_file_damaged_under_a_running_aggregator_is_set_aside_without_a_restart() {
    let Some(mesh) = Mesh::start() else { return };
    let books = Books::default();
    for damage in [Damage::FlippedInPages(0, 8), Damage::CutAt(40)] {
        books.call(&mesh, N_CALLS);
        // What the log holds is folded into the file, and is read from there afterwards.
        mesh.aggregator().stop().expect("it stops");
        mesh.aggregator().restart().expect("it starts again");
        let was = mesh.aggregator().process().expect("it runs").id();
        let last_before = last_set_aside(&mesh);
        damage.to(&state_file(&mesh, "ledger.db"));
        eventually("the damage is found", || {
            books.call(&mesh, 1);
            // Whether it comes upon the damage depends on what it has in memory; questions do not.
            let _ = mesh.ledger().rows();
            match last_set_aside(&mesh) > last_before {
                true => Ok(()),
                false => Err("nothing is set aside".to_string()),
            }
        });
        books.call(&mesh, N_CALLS);
        eventually("it is ready", || match mesh.aggregator().readiness() {
            Ok((200, body)) if body.contains(r#""set_aside":1"#) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        mesh.import_access_log(books.len());
        books.are_kept_by(&mesh);
        let is = mesh.aggregator().process().expect("it runs").id();
        assert_eq!(is, was, "it was started anew");
    }
}
