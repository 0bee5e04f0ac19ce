//! What every store of budgets must do, in memory and in a real Redis, alone and as a cluster.

mod broken;
mod cluster;
mod in_redis;
mod redis_server;
mod telling;
mod tls;

use std::fs;
use std::io::Write;

use tollmesh_aggregator::budgets::store::redis::Script;
use tollmesh_aggregator::budgets::store::{
    Ask, CellKey, Look, MemoryStore, Place, RedisStore, Store, StoreError,
};
use tollmesh_budget::lease::model::{InMemory, SCENARIOS, run};
use tollmesh_budget::lease::{Cell, Elsewhere, Fault, Holder, Marker, Reply, Terms};

use in_redis::InRedis;
use redis_server::Server;

const LIMIT: u64 = 1_000;
const FAR_FUTURE_MS: u64 = 4_102_444_800_000;

/// A server, unless there is none here.
fn server(settings: &[&str]) -> Option<Server> {
    let server = Server::start(settings);
    if server.is_none() {
        skip();
    }
    server
}

fn skip() {
    let word = "no redis-server here: run cargo xtask setup";
    assert!(std::env::var_os("TOLLMESH_REQUIRE").is_none(), "{word}");
    // Past the capture of the test's output: a skip must be seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {word}");
}

fn place(server: &Server) -> Place {
    Place::parse(&server.url()).unwrap()
}

fn terms() -> Terms {
    Terms {
        hold_ms: 0,
        settle_ms: 0,
        ..Terms::new(LIMIT, FAR_FUTURE_MS)
    }
}

fn cell(budget: &str, key: &str) -> CellKey {
    CellKey {
        budget: budget.into(),
        key: vec![key.into()],
        window_start_ms: 1_800_000_000_000,
    }
}

async fn asked(store: &dyn Store, asks: &[Ask]) -> Vec<Reply> {
    let replies = store.sync(asks).await;
    replies.into_iter().map(|reply| reply.unwrap()).collect()
}

fn ask(cell: &CellKey, holder: &mut Holder, seq: u64, want: u64) -> Ask {
    Ask {
        cell: cell.clone(),
        terms: terms(),
        report: holder.report(0, seq, want),
    }
}

/// The contract.
async fn holds_limits(store: &dyn Store) {
    let budgets = ["eng {a}".to_owned(), "ops".to_owned()];
    store.register(&budgets).await.unwrap();
    store.register(&budgets).await.unwrap();

    // A batch over several budgets is answered in its order, each cell for itself.
    let cells = [
        cell("eng {a}", "ann"),
        cell("eng {a}", "bob:{}"),
        cell("ops", "ann"),
    ];
    let mut holders = [Holder::default(), Holder::default(), Holder::default()];
    let batch: Vec<Ask> = cells
        .iter()
        .zip(&mut holders)
        .enumerate()
        .map(|(n, (cell, holder))| ask(cell, holder, 1, 10 * (n as u64 + 1)))
        .collect();
    let replies = asked(store, &batch).await;
    let granted: Vec<u64> = replies.iter().map(|reply| reply.granted).collect();
    assert_eq!(granted, [10, 20, 30]);
    assert!(
        replies
            .iter()
            .all(|reply| reply.limit == LIMIT && !reply.is_stale)
    );

    // The same report again has the same answer; an older one has none.
    assert_eq!(asked(store, &batch[..1]).await[0].granted, 10);
    let [holder, ..] = &mut holders;
    holder.take(&replies[0], 0);
    let lower = ask(&cells[0], holder, 2, 0);
    assert_eq!(
        asked(store, std::slice::from_ref(&lower)).await[0].granted,
        0
    );
    let stale = &asked(store, &batch[..1]).await[0];
    assert!(stale.is_stale && stale.granted == 0);

    // A limit is given out once, half of what is left at a time.
    let mut granted = 0;
    for seq in 3..20 {
        let more = ask(&cells[0], holder, seq, LIMIT);
        let reply = asked(store, &[more]).await[0];
        assert!(
            reply.granted >= granted && reply.allocated <= LIMIT,
            "{reply:?}"
        );
        granted = reply.granted;
        holder.take(&reply, 0);
        holder.persisted(granted);
    }
    assert_eq!(granted, LIMIT);
    holder.settle(None, LIMIT + 7);
    let spent = asked(store, &[ask(&cells[0], holder, 20, 0)]).await[0];
    assert_eq!(
        (spent.spent, spent.allocated, spent.granted),
        (LIMIT + 7, LIMIT + 7, LIMIT + 7)
    );

    // What this node has is nobody else's, and what nobody has is nothing.
    let look = Look {
        cells: vec![
            cells[1].clone(),
            cells[0].clone(),
            cell("eng {a}", "nobody"),
        ],
    };
    for found in store.look(&[look.clone(), look]).await {
        assert_eq!(found.unwrap(), [Elsewhere::default(); 3]);
    }

    assert!(store.claim("eng/ann/85%", 60_000).await.unwrap());
    // What is ours stays ours.
    assert!(store.claim("eng/ann/85%", 60_000).await.unwrap());
    assert!(store.claim("eng/ann/100%", 60_000).await.unwrap());
    store.release_held_back(&cells[0]).await.unwrap();
}

#[tokio::test]
async fn in_memory() {
    holds_limits(&MemoryStore::new("node-1".into())).await;
}

#[tokio::test]
async fn in_redis_alone() {
    let Some(server) = server(&[]) else { return };
    let store = RedisStore::new(place(&server), "node-1".into());
    holds_limits(&store).await;
    let other = RedisStore::new(place(&server), "node-2".into());
    assert!(!other.claim("eng/ann/85%", 60_000).await.unwrap());
    assert!(other.claim("eng/eve/85%", 60_000).await.unwrap());
    // A server that forgets its scripts is told again.
    server.ask("SCRIPT FLUSH");
    let fresh = ask(&cell("ops", "eve"), &mut Holder::default(), 1, 5);
    assert_eq!(asked(&store, &[fresh]).await[0].granted, 5);
}

#[tokio::test]
async fn in_a_cluster() {
    let Some(servers) = Server::start_cluster(&[]) else {
        return skip();
    };
    let store = RedisStore::new(place(&servers[0]).cluster(true), "node-1".into());
    holds_limits(&store).await;
}

#[tokio::test]
async fn what_others_wrote_is_refused_by_name() {
    let Some(server) = server(&[]) else { return };
    server.ask("SET tm:format 7");
    let store = RedisStore::new(place(&server), "node-1".into());
    let refused = store.register(&["eng".to_owned()]).await.unwrap_err();
    let expected = format!(
        "{}: key \"tm:format\" says format \"7\", and this version speaks \"1\"; set another \
         redis.prefix, or run one version only",
        server.url()
    );
    assert_eq!(refused.to_string(), expected);
    let beside = place(&server).prefix(Some("mine".into()));
    let store = RedisStore::new(beside, "node-1".into());
    store.register(&["eng".to_owned()]).await.unwrap();
    assert_eq!(server.ask("EXISTS mine:v1:{eng}:m"), ":1\r\n");
}

/// The rights that `k8s/README.md` tells operators to give: those of `ACL SETUSER` there, and those that
/// a Redis Cluster takes beside them.
fn documented_rights() -> (String, String) {
    let page = include_str!("../../../../k8s/README.md");
    let user = "ACL SETUSER tollmesh ";
    let line = page.lines().find_map(|line| line.strip_prefix(user));
    let line = line.expect("k8s/README.md tells the rights of a user");
    let of_cluster = page
        .lines()
        .find_map(|line| line.strip_prefix("and for a Redis Cluster `"));
    let of_cluster = of_cluster.and_then(|line| line.split_once('`'));
    let (of_cluster, _) = of_cluster.expect("k8s/README.md tells what a cluster takes beside");
    let rights = line.replace(">PASSWORD", ">s3cret");
    assert!(
        rights.contains(" -@all "),
        "all else is forbidden: {rights}"
    );
    (rights, of_cluster.to_owned())
}

/// The settings of a server that has that user.
fn user_settings(rights: &str) -> Vec<&str> {
    let words = ["--user", "tollmesh"].into_iter();
    words.chain(rights.split_whitespace()).collect()
}

/// A file that holds that, while this is kept.
struct Password(std::path::PathBuf);

impl Password {
    fn of(test: &str) -> Password {
        let name = format!("tollmesh-password-{test}-{}", std::process::id());
        let file = Password(std::env::temp_dir().join(name));
        fs::write(&file.0, "s3cret\n").unwrap();
        file
    }

    fn place(&self, server: &Server) -> Place {
        let url = server.url().replace("redis://", "redis://tollmesh@");
        let place = Place::parse(&url).unwrap();
        place.password_file(Some(self.0.clone()))
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Everything that a node asks of a store.
async fn does_all_that_a_node_asks(place: Place) {
    let store = RedisStore::new(place.clone(), "node-1".into());
    holds_limits(&store).await;
    store.put_notice("heard").await.unwrap();
    assert_eq!(store.notice().await.unwrap().as_deref(), Some("heard"));
    // A lease that may be reclaimed keeps a list beside the cell.
    let mut reclaiming = ask(&cell("ops", "eve"), &mut Holder::default(), 1, 5);
    reclaiming.terms.reclaim_after_ms = Some(1);
    assert_eq!(asked(&store, &[reclaiming.clone()]).await[0].granted, 5);
    reclaiming.report.seq = 2;
    reclaiming.report.want = 0;
    assert_eq!(asked(&store, &[reclaiming]).await[0].granted, 0);
    let other = RedisStore::new(place, "node-2".into());
    assert!(!other.claim("eng/ann/85%", 60_000).await.unwrap());
}

#[tokio::test]
async fn a_user_of_the_documented_rights_is_enough() {
    let (rights, _) = documented_rights();
    let mut settings = user_settings(&rights);
    settings.extend(["--requirepass", "other"]);
    let Some(server) = server(&settings) else {
        return;
    };
    let file = Password::of("alone");
    let place = file.place(&server);
    does_all_that_a_node_asks(place.clone()).await;
    // And no more than that.
    let store = RedisStore::new(place.clone(), "node-3".into());
    let mut flush = redis::cmd("SCRIPT");
    flush.arg("FLUSH");
    let refused = store.ask(&flush).await.unwrap_err();
    let told = refused.to_string().to_lowercase();
    assert!(
        told.contains("'script|flush'") && told.contains("acl setuser") && told.contains("~tm:*"),
        "{refused}"
    );
    assert!(!told.contains("login"), "{refused}");

    fs::write(&file.0, "wrong").unwrap();
    let store = RedisStore::new(place, "node-1".into());
    let refused = store.claim("x", 1).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    assert!(
        !format!("{refused} {refused:?}").contains("wrong"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_user_of_the_documented_rights_is_enough_in_a_cluster() {
    let (rights, of_cluster) = documented_rights();
    let rights = format!("{rights} {of_cluster}");
    let Some(servers) = Server::start_cluster(&user_settings(&rights)) else {
        return skip();
    };
    let file = Password::of("cluster");
    does_all_that_a_node_asks(file.place(&servers[0]).cluster(true)).await;
}

#[tokio::test]
async fn a_certificate_is_verified() {
    let files = tls::Files::of("localhost");
    let port = redis_server::free_address().port();
    let Some(_server) = server(&files.settings(port).each_ref().map(String::as_str)) else {
        return;
    };
    let place = Place::parse(&format!("rediss://localhost:{port}")).unwrap();
    let trusted = place.clone().ca_file(Some(files.ca()));
    holds_limits(&RedisStore::new(trusted, "node-1".into())).await;
    let store = RedisStore::new(place, "node-1".into());
    let refused = store.claim("x", 1).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be_and_found_again() {
    let Some(server) = server(&[]) else { return };
    let place = place(&server);
    drop(server);
    let store = RedisStore::new(place, "node-1".into());
    let away = store.claim("x", 1).await.unwrap_err();
    assert!(matches!(away, StoreError::Unavailable { .. }), "{away}");
}

/// The script answers as the cell in memory does, whatever happens, and breaks as it does.
#[test]
fn the_script_is_the_cell() {
    let Some(server) = server(&["--appendfsync", "no"]) else {
        return;
    };
    for scenario in SCENARIOS {
        let mut store = InRedis::new(&server.url(), Script::shipped());
        for seed in 0..2 {
            let outcome = run(seed, 500, scenario, &mut store);
            assert!(
                outcome.holds() && outcome.n_differing == 0,
                "{}, seed {seed}: {outcome:?}",
                scenario.name
            );
        }
    }
    for fault in Fault::ALL {
        let everything = SCENARIOS.last().unwrap();
        let mut store = InRedis::new(&server.url(), broken::script(fault));
        for seed in 0..2 {
            let by_script = run(seed, 300, everything, &mut store);
            let by_cell = run(seed, 300, everything, &mut InMemory::new(Some(fault)));
            assert_eq!(by_script, by_cell, "{fault:?}, seed {seed}");
        }
    }
}

/// What it answers to who only looks is what the cell in memory would, a loss of data included.
#[tokio::test]
async fn the_script_that_looks_is_the_cell() {
    const NODES: [&str; 3] = ["a", "b", "c"];
    let Some(server) = server(&["--appendfsync", "no"]) else {
        return;
    };
    let store = RedisStore::new(place(&server), "nobody".into());
    let mut n_held_back = 0;
    for seed in 0..10_u64 {
        let at = cell(&format!("looked at {seed}"), "ann");
        let (mut cell, mut marker) = (Cell::default(), Marker::default());
        let mut holders = NODES.map(|_| Holder::default());
        for step in 0..90_u64 {
            let now_ms = 1_800_000_000_000 + step * 700;
            store.set_clock(now_ms);
            let dice =
                (seed + 3).wrapping_mul((step + 7).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 33;
            if step == 40 {
                server.ask(&format!(
                    "DEL tm:v1:{{looked%20at%20{seed}}}:1800000000000:ann"
                ));
                server.ask(&format!("DEL tm:v1:{{looked%20at%20{seed}}}:m"));
                (cell, marker) = (Cell::default(), Marker::default());
            }
            // One of them does not come back soon.
            let n = (dice % if (40..80).contains(&step) { 2 } else { 3 }) as usize;
            let ask = Ask {
                cell: at.clone(),
                terms: Terms::new(LIMIT, FAR_FUTURE_MS),
                report: holders[n].report(now_ms, step + 1, dice / 3 % 300),
            };
            let reply = store.sync_as(NODES[n], &ask).await.unwrap();
            assert_eq!(
                reply,
                cell.sync(&mut marker, now_ms, NODES[n], &ask.report, &ask.terms)
            );
            holders[n].take(&reply, now_ms);
            holders[n].persisted(reply.granted);
            holders[n].settle(None, (dice / 7 % 90).min(holders[n].left()));
            n_held_back += u64::from(reply.held_back > 0);
            for node in ["a", "b", "c", "nobody"] {
                let look = Look {
                    cells: vec![at.clone()],
                };
                let found = store.look_as(node, &look).await.unwrap();
                assert_eq!(
                    found,
                    [cell.elsewhere(now_ms, node)],
                    "{node}, {seed}, {step}"
                );
            }
        }
    }
    assert!(n_held_back > 0);
}

/// Who was the master once, and is reached by its name no more, must not be asked for ever.
#[tokio::test]
async fn a_server_that_takes_no_writes_is_left_and_looked_for_again() {
    let Some(server) = server(&[]) else { return };
    let store = RedisStore::new(place(&server), "node-1".into());
    let mut holder = Holder::default();
    let first = ask(&cell("eng", "ann"), &mut holder, 1, 5);
    assert_eq!(asked(&store, &[first]).await[0].granted, 5);
    let mut id = redis::cmd("CLIENT");
    id.arg("ID");
    let connection = store.ask(&id).await.unwrap();
    server.ask("REPLICAOF 127.0.0.1 1");
    let second = ask(&cell("eng", "ann"), &mut holder, 2, 5);
    let refused = store.sync(std::slice::from_ref(&second)).await;
    let refused = refused[0].as_ref().unwrap_err().to_string();
    assert!(refused.contains("read only replica"), "{refused}");
    server.ask("REPLICAOF NO ONE");
    assert_ne!(store.ask(&id).await.unwrap(), connection);
    // One without room is the same server; what it refused has changed nothing.
    let connection = store.ask(&id).await.unwrap();
    server.ask("CONFIG SET maxmemory 1");
    let refused = store.sync(std::slice::from_ref(&second)).await;
    let refused = refused[0].as_ref().unwrap_err().to_string();
    assert!(refused.contains("maxmemory"), "{refused}");
    server.ask("CONFIG SET maxmemory 0");
    assert_eq!(store.ask(&id).await.unwrap(), connection);
    assert_eq!(asked(&store, &[second]).await[0].granted, 5);
}
