//! Limits under pressure: 200 clients that ask again after each refusal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rust_decimal::Decimal;
use serde_json::json;
use tollmesh_tests::fact::{eventually, until};
use tollmesh_tests::redis::Redis;
use tollmesh_tests::{Crowd, Exchange, Mesh, usage};

const N_CLIENTS: usize = 200;
/// What one call costs: 300 tokens at 2.50 and 100 at 10 dollars a million.
const CALL_USD: Decimal = Decimal::from_parts(175, 0, 0, false, 5);
/// What may be left of the limit, for calls whose worst case is too dear for it.
const USED_USD_MIN: Decimal = Decimal::from_parts(95, 0, 0, false, 2);
/// The same where a store or a node was lost for a while.
const USED_USD_MIN_AFTER_TROUBLE: Decimal = Decimal::from_parts(90, 0, 0, false, 2);
/// How long Redis is away: longer than any lease.
const AWAY: Duration = Duration::from_secs(20);
/// How long a call may take, seconds: for so long is held what a node that died may have let go ahead.
const MAX_STREAM_S: u32 = 10;
/// When nobody was served for so long, the budget is used as far as it will be.
const QUIET: Duration = Duration::from_secs(4);
/// How long a crowd may take for a dollar.
const PATIENCE: Duration = Duration::from_secs(90);

fn budget(enforce: &str) -> String {
    format!(
        "[[budget]]\nname = \"crowd\"\nmatch = {{ team = \"crowd\" }}\nlimit = \"1 USD\"\n\
         window = \"month\"\nenforce = \"{enforce}\"\non_unavailable = \"closed\"\n\
         max_stream = \"{MAX_STREAM_S}s\"\n\
         tiers = [ {{ at = \"100%\", do = \"deny\" }} ]\n"
    )
}

/// A call whose worst case is about twice what it costs.
fn call() -> Exchange {
    let ask = json!({
        "model": "gpt-4o", "max_tokens": 100,
        "messages": [{ "role": "user", "content": "x".repeat(800) }]
    });
    let answer = json!({
        "id": "r1", "model": "gpt-4o",
        "choices": [{ "index": 0, "message": { "content": "hi" }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400 }
    });
    Exchange::post("api.openai.com", "/v1/chat/completions", ask.to_string())
        .answered("application/json", answer.to_string())
        .uses(usage("gpt-4o").input(300).output(100))
}

/// Waits until so many calls were served, and nobody for a while after that; or until time is up.
fn exhausted(crowd: &Crowd, n_served_min: u64) {
    let mut last = (crowd.n_served(), Instant::now());
    let _ = until(PATIENCE, || {
        let n_served = crowd.n_served();
        if n_served != last.0 {
            last = (n_served, Instant::now());
        }
        let is_quiet = last.1.elapsed() >= QUIET && crowd.n_refused() > 0;
        match is_quiet && n_served >= n_served_min {
            true => Ok(()),
            false => Err(format!("{n_served} served")),
        }
    });
}

/// How many calls that part of the limit pays.
fn calls_for(usd: Decimal) -> u64 {
    u64::try_from((usd / CALL_USD).ceil()).expect("is small")
}

/// What the ledgers say was spent, once each call that was served is there.
fn spent(meshes: &[&Mesh], n_served: u64) -> Decimal {
    eventually("every call is in a ledger", || {
        let mut usd = Decimal::ZERO;
        for mesh in meshes {
            let (_, more) = mesh
                .ledger()
                .spend()
                .map_err(|error| format!("{error:#}"))?;
            usd += more;
        }
        match usd == CALL_USD * Decimal::from(n_served) {
            true => Ok(usd),
            false => Err(format!("{usd} USD for {n_served} calls of {CALL_USD}")),
        }
    })
}

/// Spends the budget while something happens, and says what was spent of it.
fn rush(meshes: &[&Mesh], what: &str, least: Decimal, trouble: impl FnOnce(&Crowd)) -> Decimal {
    let began = Instant::now();
    let crowd = Crowd::gather(meshes, "crowd", N_CLIENTS, &call());
    trouble(&crowd);
    exhausted(&crowd, calls_for(least));
    let (n_served, n_refused, n_failed) = crowd.disperse(meshes[0]);
    let spent = spent(meshes, n_served);
    println!(
        "{what}: {spent} USD of 1 by {n_served} calls, {n_refused} refused, {n_failed} failed, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(n_failed, 0, "{what}");
    meshes.iter().for_each(|mesh| mesh.has_not_trapped());
    spent
}

#[track_caller]
fn holds(spent: Decimal, least: Decimal) {
    assert!(spent <= Decimal::ONE, "{spent} USD of 1");
    assert!(spent >= least, "{spent} USD of 1, at least {least}");
}

fn nothing(_: &Crowd) {}

/// One rush at a time: a machine with two cores has no room for two.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn one_proxy_alone_keeps_its_limit() {
    let _alone = alone();
    let Some(mesh) = Mesh::built().budgets(&budget("strict")).start() else {
        return;
    };
    let spent = rush(&[&mesh], "one proxy, strict", USED_USD_MIN, nothing);
    holds(spent, USED_USD_MIN);
}

/// Four proxies, each with its aggregator, and the Redis that they share.
struct Cluster {
    meshes: Vec<Mesh>,
    redis: Redis,
}

impl Cluster {
    fn start(enforce: &str) -> Option<Cluster> {
        let redis = Redis::start(&[])?;
        let toml = format!("[redis]\nurl = \"{}\"\n", redis.url());
        let built = || Mesh::built().budgets(&budget(enforce)).aggregator(&toml);
        let meshes = (0..4).map(|_| built().workers(1).start());
        Some(Cluster {
            meshes: meshes.collect::<Option<Vec<Mesh>>>()?,
            redis,
        })
    }
}

/// Waits until about a quarter of the limit is spent.
fn a_quarter_is_spent(crowd: &Crowd) {
    eventually("a quarter of the limit is spent", || {
        let n_served = crowd.n_served();
        let enough = n_served >= calls_for(Decimal::new(25, 2));
        enough.then_some(()).ok_or(format!("{n_served} served"))
    });
}

#[test]
fn four_proxies_share_one_dollar() {
    let _alone = alone();
    let mut total = Vec::new();
    for enforce in ["strict", "cached"] {
        let Some(cluster) = Cluster::start(enforce) else {
            return;
        };
        let meshes: Vec<&Mesh> = cluster.meshes.iter().collect();
        let what = format!("four proxies, {enforce}");
        total.push(rush(&meshes, &what, USED_USD_MIN, nothing));
    }
    let (strict, cached) = (total[0], total[1]);
    println!("cached passes the limit by {} USD", cached - Decimal::ONE);
    holds(strict, USED_USD_MIN);
}

#[test]
fn an_aggregator_killed_with_calls_in_flight_passes_no_limit() {
    let _alone = alone();
    let Some(cluster) = Cluster::start("strict") else {
        return;
    };
    let meshes: Vec<&Mesh> = cluster.meshes.iter().collect();
    let spent = rush(
        &meshes,
        "an aggregator killed",
        USED_USD_MIN_AFTER_TROUBLE,
        |crowd| {
            a_quarter_is_spent(crowd);
            let mut aggregator = meshes[0].aggregator();
            aggregator.kill();
            aggregator.restart().expect("it starts again");
        },
    );
    holds(spent, USED_USD_MIN_AFTER_TROUBLE);
}

#[test]
fn a_redis_that_is_away_passes_no_limit() {
    let _alone = alone();
    let Some(mut cluster) = Cluster::start("strict") else {
        return;
    };
    let meshes: Vec<&Mesh> = cluster.meshes.iter().collect();
    let redis = &mut cluster.redis;
    let spent = rush(
        &meshes,
        "Redis away for 20 s",
        USED_USD_MIN_AFTER_TROUBLE,
        |crowd| {
            a_quarter_is_spent(crowd);
            redis.kill();
            let began = Instant::now();
            let _ = until(AWAY, || match began.elapsed() >= AWAY {
                true => Ok(()),
                false => Err(String::new()),
            });
            redis.restart().expect("it starts again");
        },
    );
    holds(spent, USED_USD_MIN_AFTER_TROUBLE);
}

#[test]
fn a_redis_that_is_emptied_passes_no_limit() {
    let _alone = alone();
    let Some(cluster) = Cluster::start("strict") else {
        return;
    };
    let meshes: Vec<&Mesh> = cluster.meshes.iter().collect();
    let spent = rush(
        &meshes,
        "Redis emptied",
        USED_USD_MIN_AFTER_TROUBLE,
        |crowd| {
            a_quarter_is_spent(crowd);
            let answer = cluster.redis.ask("FLUSHALL").expect("Redis answers");
            assert!(answer.starts_with("+OK"), "{answer}");
        },
    );
    holds(spent, USED_USD_MIN_AFTER_TROUBLE);
}

/// A limit of one call on a model, asked by each name under which the model is served.
#[test]
fn another_name_of_a_model_is_no_way_around_its_limit() {
    for (enforce, model) in [
        ("strict", "gpt-4o"),
        ("strict", "gpt-4o*"),
        ("cached", "gpt-4o"),
    ] {
        let budget = format!(
            "[[budget]]\nname = \"one\"\nmatch = {{ team = \"pm\", model = \"{model}\" }}\n\
             limit = \"1 requests\"\nwindow = \"month\"\nenforce = \"{enforce}\"\n\
             tiers = [ {{ at = \"100%\", do = \"deny\" }} ]\n"
        );
        let Some(mesh) = Mesh::built().budgets(&budget).workers(1).start() else {
            return;
        };
        let call = |model: &str| {
            let ask = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
            let reply = self::call().reply;
            let mut exchange =
                Exchange::post("api.openai.com", "/v1/chat/completions", ask.to_string());
            exchange.reply = reply;
            mesh.client("pm").call(&exchange).status
        };
        assert_eq!(call("GPT-4o"), Some(200), "{enforce} {model}");
        eventually("the limit is known to be spent", || match call("gpt-4o") {
            Some(429) => Ok(()),
            status => Err(format!("{status:?}")),
        });
        for name in ["GPT-4o", "gpt-4O", "gpt-4o-2024-08-06", "openai/gpt-4o"] {
            let is_of_pattern = !model.contains('*') || name.to_lowercase().starts_with("gpt");
            let expected = if is_of_pattern { 429 } else { 200 };
            assert_eq!(call(name), Some(expected), "{enforce} {model}: {name}");
        }
        // Another model is none of its business.
        let other = if model.contains('*') {
            "gpt-5"
        } else {
            "gpt-4o-mini"
        };
        assert_eq!(call(other), Some(200), "{enforce} {model}: {other}");
    }
}
