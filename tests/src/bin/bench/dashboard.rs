//! How fast the dashboard is over a large ledger: paint by paint, in a real Chromium.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::runtime::Runtime;
use tollmesh_tests::aggregator::{Aggregator, STATE_DIR};
use tollmesh_tests::artifacts;
use tollmesh_tests::browser::{Browser, Look, Page};
use tollmesh_tests::fact;

/// Calls in the ledger, over 90 days.
const CALLS: &str = "1000000";

/// What is looked at: the span's name and its query. The ledger's last day is the 21st.
const SPANS: [(&str, &str); 4] = [
    ("a day", "/?from=2026-11-21T00:00Z&to=2026-11-22T00:00Z"),
    ("7 days", "/?from=2026-11-15T00:00Z&to=2026-11-22T00:00Z"),
    ("30 days", "/?from=2026-10-23T00:00Z&to=2026-11-22T00:00Z"),
    ("90 days", "/?from=2026-08-24T00:00Z&to=2026-11-22T00:00Z"),
];

const LOOK: Look = Look {
    width: 1_280,
    height: 900,
    dark: false,
};

/// What is told of each opening, in milliseconds after the navigation began. Outcomes are not among
/// them: they are asked for when somebody scrolls to them.
const PAINTS: [(&str, &str); 4] = [
    ("first paint", "first-paint"),
    ("first contentful paint", "first-contentful-paint"),
    ("figures on top", "drawn summary"),
    ("all that is asked", "drawn"),
];

/// Makes the ledger, and opens the dashboard so many times for each span, each time in a page
/// without cache.
pub fn measure(rounds: u32) -> anyhow::Result<()> {
    let tollmesh = artifacts::tollmesh().map_err(anyhow::Error::msg)?;
    let chromium = artifacts::chromium().map_err(anyhow::Error::msg)?;
    let maker = std::env::var_os("TOLLMESH_LARGE_LEDGER").map(PathBuf::from);
    let maker = maker.context("TOLLMESH_LARGE_LEDGER names no program")?;
    let dir = tempfile::tempdir()?;
    let state = dir.path().join(STATE_DIR);
    std::fs::create_dir(&state)?;
    println!("A ledger of {CALLS} calls");
    let made = Command::new(&maker).arg(CALLS).arg(&state).status()?;
    ensure!(made.success(), "{}: {made}", maker.display());

    let runtime = Runtime::new()?;
    let keep = "[retention]\ndays = 3660";
    let aggregator = Aggregator::start(&tollmesh, dir.path(), false, keep, runtime.handle())?;
    let browser = Browser::start(&chromium)?;
    println!("\nThe dashboard over it, median and maximum of {rounds} openings, milliseconds:\n");
    let names = PAINTS.map(|(name, _)| format!("{name:>24}")).concat();
    println!("{:>8}{names}", "");
    for (name, path) in SPANS {
        let url = format!("http://{}{path}", aggregator.operator());
        let mut figures = vec![Vec::new(); PAINTS.len()];
        for _ in 0..rounds {
            let page = browser.page(LOOK)?;
            page.open(&url)?;
            let marks = settled(&page)?;
            for (times, (_, mark)) in figures.iter_mut().zip(PAINTS) {
                times.push(marks[mark].as_f64().with_context(|| format!("no {mark}"))?);
            }
            page.close()?;
        }
        let cells = figures.iter_mut().map(|times| cell(times));
        println!("{name:>8}{}", cells.collect::<String>());
    }
    Ok(())
}

/// All marks by name, once everything is drawn.
fn settled(page: &Page) -> anyhow::Result<Value> {
    let marks = "Object.fromEntries([...performance.getEntriesByType('paint'), \
                 ...performance.getEntriesByType('mark')].map(it => [it.name, it.startTime]))";
    let seen = fact::until(fact::PATIENCE, || {
        let marks = page.value(marks).map_err(|error| format!("{error:#}"))?;
        match marks.get("drawn") {
            Some(_) => Ok(marks),
            None => Err(marks.to_string()),
        }
    });
    seen.map_err(anyhow::Error::msg)
}

fn cell(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let max = times.last().copied().unwrap_or_default();
    format!("{:>24}", format!("{median:.0} / {max:.0}"))
}
