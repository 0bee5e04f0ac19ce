//! What the demo sends, and the proof that all of it was metered.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use tokio::task::JoinSet;
use tollmesh_tests::artifacts::Artifacts;
use tollmesh_tests::client::Client;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::{self, PATIENCE};
use tollmesh_tests::ledger::Row;
use tollmesh_tests::{Answer, Ended, Exchange, Mesh, Usage, usage};

/// How often each service does what it does, before the demo shows the bill.
const ROUNDS: u64 = 12;

/// The pause between calls while the demo stays up, so that graphs have something to show.
const TRICKLE: Duration = Duration::from_secs(2);

/// One kind of call that a service makes.
struct Habit {
    team: &'static str,
    feature: &'static str,
    dialect: Dialect,
    model: &'static str,
    is_streamed: bool,
    /// Tokens of the first round; later rounds vary.
    input: u64,
    cache_read: u64,
    output: u64,
    reasoning: u64,
}

const HABITS: [Habit; 6] = [
    Habit {
        team: "checkout",
        feature: "fraud-check",
        dialect: Dialect::OpenAiChat,
        model: "gpt-4o-mini",
        is_streamed: false,
        input: 820,
        cache_read: 0,
        output: 12,
        reasoning: 0,
    },
    Habit {
        team: "checkout",
        feature: "address-help",
        dialect: Dialect::OpenAiResponses,
        model: "gpt-5-mini",
        is_streamed: true,
        input: 410,
        cache_read: 1_024,
        output: 96,
        reasoning: 320,
    },
    Habit {
        team: "search",
        feature: "rewrite",
        dialect: Dialect::Gemini,
        model: "gemini-2.5-flash",
        is_streamed: false,
        input: 180,
        cache_read: 0,
        output: 24,
        reasoning: 60,
    },
    Habit {
        team: "search",
        feature: "summary",
        dialect: Dialect::Gemini,
        model: "gemini-2.5-pro",
        is_streamed: true,
        input: 6_200,
        cache_read: 4_096,
        output: 340,
        reasoning: 700,
    },
    Habit {
        team: "support",
        feature: "answer",
        dialect: Dialect::Anthropic,
        model: "claude-sonnet-4-5",
        is_streamed: true,
        input: 350,
        cache_read: 9_000,
        output: 280,
        reasoning: 0,
    },
    Habit {
        team: "support",
        feature: "triage",
        dialect: Dialect::OpenAiChat,
        model: "gpt-4o",
        is_streamed: true,
        input: 1_300,
        cache_read: 512,
        output: 45,
        reasoning: 0,
    },
];

/// A call that was made: what the provider counted, and what the app saw.
struct Made {
    answer: Answer,
    /// `None` for the call that hung up: the provider's last word never left it.
    usage: Option<Usage>,
}

/// Sends the traffic, shows the bill, and either checks and stops or stays up.
pub fn tell(artifacts: &Artifacts, once: bool) -> anyhow::Result<bool> {
    println!("starting Envoy with the filter, the aggregator, and providers on loopback …");
    let mesh = Mesh::built().start_with(artifacts)?;
    let mut made = vec![mesh.runtime().block_on(hang_up(&mesh))?];
    // Before any other answer has taught the filter how many tokens a text has: so the estimate, and
    // with it the sum, is the same each time.
    mesh.ledger().row_of(&made[0].answer);
    made.extend(mesh.runtime().block_on(send_rounds(&mesh, ROUNDS))?);
    let verdict = verify(&mesh, &made)?;
    print_report(&mesh)?;
    if !once {
        stay_up(&mesh)?;
    }
    for wrong in &verdict.wrong {
        println!("wrong: {wrong}");
    }
    println!(
        "metered {} requests, ${}, {} lost, {} doubled",
        verdict.n_rows,
        verdict.cost_usd.normalize(),
        verdict.n_lost,
        verdict.n_doubled
    );
    Ok(verdict.is_clean())
}

async fn send_rounds(mesh: &Mesh, n_rounds: u64) -> anyhow::Result<Vec<Made>> {
    let mut calls = JoinSet::new();
    for round in 0..n_rounds {
        for habit in &HABITS {
            let client = app(mesh, habit);
            let (exchange, usage) = habit.call(round);
            calls.spawn(async move { make(client, exchange, Some(usage)).await });
        }
    }
    let mut made = Vec::new();
    while let Some(call) = calls.join_next().await {
        made.push(call??);
    }
    Ok(made)
}

/// One client reads half of an answer and goes.
async fn hang_up(mesh: &Mesh) -> anyhow::Result<Made> {
    let habit = &HABITS[4];
    let (exchange, _) = habit.call(0);
    let half = exchange.reply.body.n_bytes() / 2;
    let impatient = app(mesh, habit).hangs_up_after(half);
    make(
        impatient,
        exchange.silent_after(usize::try_from(half)?),
        None,
    )
    .await
}

async fn make(client: Client, exchange: Exchange, usage: Option<Usage>) -> anyhow::Result<Made> {
    let answer = client.send(&exchange).await?;
    let want = if usage.is_some() {
        Ended::Whole
    } else {
        Ended::HungUp
    };
    ensure!(
        answer.status == Some(200),
        "{}: {:?}",
        exchange.ask.path,
        answer.status
    );
    ensure!(
        answer.ended == want,
        "{}: {:?}",
        exchange.ask.path,
        answer.ended
    );
    Ok(Made { answer, usage })
}

fn app(mesh: &Mesh, habit: &Habit) -> Client {
    mesh.client(habit.team)
        .tag("feature", habit.feature)
        .tag("environment", "demo")
}

impl Habit {
    fn call(&self, round: u64) -> (Exchange, Usage) {
        // No two rounds alike, so that a row taken for another one is noticed.
        let vary = |tokens: u64| if tokens == 0 { 0 } else { tokens + round * 7 };
        let usage = usage(self.model)
            .input(vary(self.input))
            .cache_read(self.cache_read)
            .output(vary(self.output))
            .reasoning(vary(self.reasoning));
        let exchange = if self.is_streamed {
            self.dialect.streamed(&usage)
        } else {
            self.dialect.plain(&usage)
        };
        (exchange, usage)
    }
}

/// What the ledger makes of the calls.
#[derive(Debug, Default)]
struct Verdict {
    n_rows: usize,
    n_lost: usize,
    n_doubled: usize,
    wrong: Vec<String>,
    cost_usd: Decimal,
}

impl Verdict {
    fn is_clean(&self) -> bool {
        self.n_lost == 0 && self.n_doubled == 0 && self.wrong.is_empty()
    }
}

/// Waits until every call has its row, then compares row by row with what the providers served.
fn verify(mesh: &Mesh, made: &[Made]) -> anyhow::Result<Verdict> {
    let ledger = mesh.ledger();
    let mut seen = None;
    let settled = fact::until(PATIENCE, || {
        let rows = ledger.by_request_id()?;
        let n_lost = made
            .iter()
            .filter(|made| !rows.contains_key(&made.answer.request_id))
            .count();
        seen = Some(rows);
        if n_lost == 0 {
            Ok(())
        } else {
            Err(format!("{n_lost} calls have no row"))
        }
    });
    if let Err(missing) = settled {
        println!("{missing}");
    }
    let rows = seen.context("the ledger could not be read")?;
    judge(made, &rows)
}

fn judge(made: &[Made], rows: &HashMap<String, Vec<Row>>) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    for Made { answer, usage } in made {
        let Some(found) = rows.get(&answer.request_id) else {
            verdict.n_lost += 1;
            continue;
        };
        verdict.n_rows += found.len();
        verdict.n_doubled += found.len() - 1;
        for row in found {
            let cost = row.text("cost_usd").unwrap_or("0");
            verdict.cost_usd += cost
                .parse::<Decimal>()
                .with_context(|| format!("cost {cost:?}"))?;
            let mut differences = usage
                .as_ref()
                .map_or(Vec::new(), |want| row.differences(want));
            let outcome = if usage.is_some() {
                "success"
            } else {
                "aborted"
            };
            if row.text("outcome") != Some(outcome) {
                differences.push(format!("outcome {} instead of {outcome}", row.0["outcome"]));
            }
            if !differences.is_empty() {
                verdict
                    .wrong
                    .push(format!("{}: {}", answer.request_id, differences.join(", ")));
            }
        }
    }
    Ok(verdict)
}

/// Prints the bill as `tollmesh report` has it.
pub fn print_report(mesh: &Mesh) -> anyhow::Result<()> {
    let output = mesh
        .aggregator()
        .command(&["report", "--by", "team,model"])?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "tollmesh report: {}: {}",
        output.status,
        words.trim()
    );
    println!("\n{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Stays up, with a call now and then, until Ctrl-C.
fn stay_up(mesh: &Mesh) -> anyhow::Result<()> {
    let operator = mesh.operator();
    println!("dashboard http://{operator}/");
    println!("metrics   http://{operator}/metrics");
    println!("spend     http://{operator}/api/v1/spend?by=team,model");
    println!("requests  http://{operator}/api/v1/requests?sort=cost&limit=10");
    println!(
        "Envoy     http://{} (admin http://{})",
        mesh.envoy().listener(),
        mesh.envoy().admin()
    );
    println!("a call every {} s until Ctrl-C", TRICKLE.as_secs());
    mesh.runtime().block_on(async {
        for round in ROUNDS.. {
            let habit = &HABITS[(round % HABITS.len() as u64) as usize];
            let (exchange, usage) = habit.call(round);
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => return interrupted.context("no Ctrl-C here"),
                () = tokio::time::sleep(TRICKLE) => {}
            }
            let _ = make(app(mesh, habit), exchange, Some(usage)).await?;
        }
        Ok(())
    })
}

/// Waits for Ctrl-C.
pub fn wait_for_interrupt(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.runtime()
        .block_on(tokio::signal::ctrl_c())
        .context("no Ctrl-C here")
}
