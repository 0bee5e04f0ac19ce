//! A real Prometheus at `/metrics`: nothing to find fault with, and sums that are the ledger's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rust_decimal::Decimal;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::prometheus::{Prometheus, Sample, finds_no_fault};
use tollmesh_tests::{Answer, Mesh, artifacts, usage};

/// Teams of the traffic.
const TEAMS: [&str; 3] = ["red", "blue", "of \"Zoë\", née \\ Søren"];

/// What each team's calls came to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    cost: BTreeMap<String, Decimal>,
    tokens: BTreeMap<String, Decimal>,
    n_calls: Decimal,
}

fn prometheus() -> Option<PathBuf> {
    artifacts::prometheus()
        .inspect_err(|missing| artifacts::skip(missing))
        .ok()
}

fn calls(mesh: &Mesh, range: std::ops::Range<u64>) -> Vec<Answer> {
    range
        .map(|n| {
            let used = usage("claude-sonnet-4-5").input(100 + n).output(1 + n % 50);
            let exchange = match n % 2 {
                0 => Dialect::Anthropic.plain(&used),
                _ => Dialect::Anthropic.streamed(&used),
            };
            let team = TEAMS[n as usize % TEAMS.len()];
            let answer = mesh.client(team).call(&exchange);
            answer.is_what_was_sent(&exchange);
            answer
        })
        .collect()
}

/// What the ledger says of these calls.
fn ledger_sums(mesh: &Mesh, answers: &[Answer]) -> Sums {
    let mut sums = Sums::default();
    for row in mesh.ledger().rows_of(&answers.iter().collect::<Vec<_>>()) {
        let team = row.tag("team").expect("a team").to_string();
        let cost = row.text("cost_usd").expect("a priced call");
        let cost: Decimal = cost.parse().expect("a decimal");
        let tokens: u64 = ["input", "output"]
            .iter()
            .filter_map(|b| row.bucket(b))
            .sum();
        *sums.cost.entry(team.clone()).or_default() += cost;
        *sums.tokens.entry(team).or_default() += Decimal::from(tokens);
        sums.n_calls += Decimal::ONE;
    }
    sums
}

/// Waits for a scrape that shows so many calls; when it was.
fn scraped(prometheus: &Prometheus, n_calls: usize) -> i64 {
    eventually("a scrape of all calls", || {
        let samples = prometheus.samples("tollmesh_requests_total");
        let samples = samples.map_err(|error| format!("{error:#}"))?;
        let newest = samples.last().map(|sample| sample.time_ms).unwrap_or(0);
        let at_newest = samples.iter().filter(|sample| sample.time_ms == newest);
        let n: Decimal = at_newest.map(|sample| sample.value).sum();
        match n == Decimal::from(n_calls as u64) {
            true => Ok(newest),
            false => Err(format!("{n} calls")),
        }
    })
}

/// `increase()` between two scrapes. Where the range ends at samples Prometheus extrapolates
/// nothing, so that what it says is exact but for its binary fractions.
fn increase(prometheus: &Prometheus, from_ms: i64, to_ms: i64) -> Sums {
    let by_team = |metric: &str| {
        let range_ms = to_ms - from_ms;
        let expression = format!("sum by (team)(increase({metric}[{range_ms}ms]))");
        let samples = prometheus.at(&expression, to_ms).expect("an answer");
        let exact = |sample: &Sample| {
            let team = sample.labels["team"].as_str().unwrap_or_default();
            (team.to_string(), sample.value.round_dp(12).normalize())
        };
        samples.iter().map(exact).collect::<BTreeMap<_, _>>()
    };
    Sums {
        cost: by_team("tollmesh_cost_usd_total"),
        tokens: by_team("tollmesh_tokens_total"),
        n_calls: by_team("tollmesh_requests_total").values().sum(),
    }
}

#[test]
fn increase_over_restarts_is_what_the_ledger_says() {
    let (Some(program), Some(mesh)) = (prometheus(), Mesh::start()) else {
        return;
    };
    let mut n_calls = 0;
    let mut more = |n: u64| {
        n_calls += n;
        calls(&mesh, n_calls - n..n_calls)
    };
    // Series that are new have no increase yet, so each is there before the first scrape.
    let before = more(6);
    ledger_sums(&mesh, &before);
    let runtime = mesh.runtime().handle();
    let prometheus = Prometheus::start(&program, mesh.dir(), mesh.operator(), runtime)
        .expect("Prometheus starts");
    let from_ms = scraped(&prometheus, before.len());

    let mut answers = more(20);
    scraped(&prometheus, before.len() + answers.len());
    mesh.aggregator()
        .restart()
        .expect("it starts after SIGKILL");
    answers.extend(more(20));
    mesh.aggregator().stop().expect("it stops cleanly");
    answers.extend(more(20));
    mesh.aggregator().restart().expect("it starts again");
    answers.extend(more(20));
    let want = ledger_sums(&mesh, &answers);
    let to_ms = scraped(&prometheus, before.len() + answers.len());
    assert_eq!(increase(&prometheus, from_ms, to_ms), want);

    // Prometheus took nothing for a counter that began anew.
    let resets = format!(
        "sum(resets({{__name__=~\"tollmesh_.*_total\",team!=\"\"}}[{}ms]))",
        to_ms - from_ms
    );
    let resets = prometheus.at(&resets, to_ms).expect("an answer");
    let resets: Vec<Decimal> = resets.into_iter().map(|sample| sample.value).collect();
    assert_eq!(resets, [Decimal::ZERO]);
}

#[test]
fn promtool_finds_no_fault_with_metrics() {
    let (Some(program), Some(mesh)) = (prometheus(), Mesh::start()) else {
        return;
    };
    // An empty ledger, one with calls, and one after a restart.
    let scrape = || mesh.aggregator().metrics().expect("a scrape").0;
    finds_no_fault(&program, &scrape());
    let answers = calls(&mesh, 0..12);
    ledger_sums(&mesh, &answers);
    let text = scrape();
    assert!(text.contains("tollmesh_cost_usd_total{"), "{text}");
    finds_no_fault(&program, &text);
    mesh.aggregator().restart().expect("it starts again");
    finds_no_fault(&program, &scrape());
}
