//! Limits under pressure: 200 clients that ask again after each refusal.

use std::time::{Duration, Instant};

use rust_decimal::Decimal;
use serde_json::json;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::redis::Redis;
use tollmesh_tests::{Crowd, Exchange, Mesh, usage};

const N_CLIENTS: usize = 200;
/// What one call costs: 300 tokens at 2.50 and 100 at 10 dollars a million.
const CALL_USD: Decimal = Decimal::from_parts(175, 0, 0, false, 5);
/// What may be left of the limit, for calls whose worst case is too dear for it.
const USED_USD_MIN: Decimal = Decimal::from_parts(95, 0, 0, false, 2);
/// When nobody was served for so long, the budget is used as far as it will be.
const QUIET: Duration = Duration::from_secs(4);
/// How long a crowd may take for a dollar.
const PATIENCE: Duration = Duration::from_secs(60);

fn budget(enforce: &str) -> String {
    format!(
        "[[budget]]\nname = \"crowd\"\nmatch = {{ team = \"crowd\" }}\nlimit = \"1 USD\"\n\
         window = \"month\"\nenforce = \"{enforce}\"\non_unavailable = \"closed\"\n\
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

/// Waits until nobody has been served for a while, or until time is up.
fn exhausted(crowd: &Crowd) {
    let began = Instant::now();
    let mut last = (crowd.n_served(), Instant::now());
    let _ = tollmesh_tests::fact::until(PATIENCE, || {
        let n_served = crowd.n_served();
        if n_served != last.0 {
            last = (n_served, Instant::now());
        }
        match last.1.elapsed() >= QUIET && crowd.n_refused() > 0 {
            true => Ok(()),
            false => Err(format!("{n_served} served after {:?}", began.elapsed())),
        }
    });
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

/// Spends the budget, and says what was spent of it.
fn rush(meshes: &[&Mesh], what: &str) -> Decimal {
    let began = Instant::now();
    let crowd = Crowd::gather(meshes, "crowd", N_CLIENTS, &call());
    exhausted(&crowd);
    let (n_served, n_refused, n_failed) = crowd.disperse(meshes[0]);
    let spent = spent(meshes, n_served);
    println!(
        "{what}: {spent} USD of 1 by {n_served} calls, {n_refused} refused, {n_failed} failed, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(n_failed, 0, "{what}");
    spent
}

#[test]
fn one_proxy_alone_keeps_its_limit() {
    let Some(mesh) = Mesh::built().budgets(&budget("strict")).start() else {
        return;
    };
    let spent = rush(&[&mesh], "one proxy, strict");
    assert!(
        spent <= Decimal::ONE && spent >= USED_USD_MIN,
        "{spent} USD"
    );
    mesh.has_not_trapped();
}

fn cluster(redis: &Redis, enforce: &str) -> Option<Vec<Mesh>> {
    let toml = format!("[redis]\nurl = \"{}\"\n", redis.url());
    let built = || Mesh::built().budgets(&budget(enforce)).aggregator(&toml);
    (0..4).map(|_| built().workers(1).start()).collect()
}

#[test]
fn four_proxies_share_one_dollar() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut total = Vec::new();
    for enforce in ["strict", "cached"] {
        let Some(redis) = Redis::start(runtime.handle()) else {
            return;
        };
        let Some(meshes) = cluster(&redis, enforce) else {
            return;
        };
        let meshes: Vec<&Mesh> = meshes.iter().collect();
        total.push(rush(&meshes, &format!("four proxies, {enforce}")));
        meshes.iter().for_each(|mesh| mesh.has_not_trapped());
    }
    let (strict, cached) = (total[0], total[1]);
    println!("cached passes the limit by {} USD", cached - Decimal::ONE);
    assert!(
        strict <= Decimal::ONE && strict >= USED_USD_MIN,
        "{strict} USD"
    );
}
