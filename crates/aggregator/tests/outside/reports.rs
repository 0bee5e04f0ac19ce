//! Reports for people, over a ledger of nine days.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::process::{BINARY, Process, event};

/// Two models of one provider: `small` at 1 and 4 dollars for a million tokens, `large` at tenfold.
const PRICES: &str = r#"
schema = 1
provider = "acme"
currency = "USD"
[tiers]
standard = ["default"]
[source]
list = "https://acme.example/prices"
[[model]]
id = "small"
match = ["small"]
rate = [ { input = "1", cache_read = "0.1", output = "4", src = "list", checked = 2026-11-01 } ]
[[model]]
id = "large"
match = ["large"]
rate = [ { input = "10", cache_read = "1", output = "40", src = "list", checked = 2026-11-01 } ]
"#;

/// A model that became dearer with the day.
const RISEN: &str = r#"
[[model]]
id = "risen"
match = ["risen"]
rate = [
  { until = 2026-11-20, input = "1", cache_read = "0.1", output = "4", src = "list", checked = 2026-11-01 },
  { from = 2026-11-20, input = "3", cache_read = "0.1", output = "4", src = "list", checked = 2026-11-01 },
]
"#;

const BUDGETS: &str = r#"
[[budget]]
name = "red-daily"
match = { team = "red" }
limit = "0.01 USD"
window = "day"
tiers = [ { at = "80%", do = "warn" }, { at = "100%", do = "deny" } ]
[[budget]]
name = "each-team"
per = ["team"]
limit = "100 requests"
window = "month"
timezone = "Europe/Madrid"
[[budget]]
name = "idle"
match = { team = "nobody" }
limit = "5M tokens"
window = "rolling 24h"
"#;

/// What a team's calls on a day are.
struct Calls<'a> {
    day: u32,
    team: &'a str,
    n: u32,
    model: &'a str,
    usage: Value,
}

/// A ledger with a week of even days, and a day on which each team changed in its own way.
struct Week {
    dir: tempfile::TempDir,
    process: Process,
}

impl Week {
    fn start() -> Week {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let (prices, budgets) = (
            file("acme.toml", &(PRICES.to_owned() + RISEN)),
            file("budgets.toml", BUDGETS),
        );
        let more = format!("pricing = [{prices:?}]\nbudgets = {budgets:?}");
        let process = Process::start(dir.path(), &more);
        let usual = json!({ "input": 200, "cache_read": 800, "output": 100 });
        let mut events = Vec::new();
        for day in 13..20 {
            for (team, n) in [("red", 2), ("blue", 3), ("green", 2), ("grey", 1)] {
                let usage = usual.clone();
                let model = "small";
                events.extend(calls(&Calls {
                    day,
                    team,
                    n,
                    model,
                    usage,
                }));
            }
        }
        let day = 20;
        for (team, n, model, usage) in [
            ("red", 2, "large", usual.clone()),
            ("blue", 9, "small", usual.clone()),
            ("green", 2, "small", json!({ "input": 1000, "output": 100 })),
            ("=cmd|'/C calc'!A0", 1, "small", usual.clone()),
            ("<script>alert(1)</script>", 1, "unheard-of", usual.clone()),
        ] {
            events.extend(calls(&Calls {
                day,
                team,
                n,
                model,
                usage,
            }));
        }
        let (team, model) = ("violet", "risen");
        for day in 13..=20 {
            let usage = usual.clone();
            events.extend(calls(&Calls {
                day,
                team,
                n: 2,
                model,
                usage,
            }));
        }
        // One call a day, and then two more that repeat the first.
        let (team, model) = ("amber", "small");
        for (day, n) in (13..20).map(|day| (day, 1)).chain([(20, 3)]) {
            let usage = usual.clone();
            let mut repeated = calls(&Calls {
                day,
                team,
                n,
                model,
                usage,
            });
            for call in &mut repeated {
                call["fingerprint"] = json!(format!("{day:032}"));
            }
            events.extend(repeated);
        }
        process.send(&events);
        Week { dir, process }
    }

    fn report(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .args([&["report"], arguments].concat())
            .arg("--config")
            .arg(self.config())
            .output()
            .unwrap()
    }

    fn told(&self, arguments: &[&str]) -> String {
        let output = self.report(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn config(&self) -> PathBuf {
        Path::new(self.dir.path()).join("tollmesh.toml")
    }
}

fn calls(calls: &Calls<'_>) -> Vec<Value> {
    let call = |i| {
        let Calls {
            day,
            team,
            model,
            usage,
            ..
        } = calls;
        let mut call = event(&format!("{team}-{day}-{i}"), team);
        call["time"] = json!(format!("2026-11-{day}T10:{i:02}:00.000Z"));
        call["provider"] = json!("acme");
        call["host"] = json!("acme.example");
        call["model"] = json!(model);
        call["model_requested"] = json!(model);
        call["usage"] = usage.clone();
        call["tags"]["cost_center"] = json!("cc-1");
        call
    };
    (0..calls.n).map(call).collect()
}

fn decimal(value: &Value) -> Decimal {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_day_is_told_in_every_format() {
    let week = Week::start();
    let daily = |format| week.told(&["daily", "--day", "2026-11-20", "--format", format]);
    insta::assert_snapshot!("daily", daily("text"));
    insta::assert_snapshot!("daily.csv", daily("csv"));

    let json: Value = serde_json::from_str(&daily("json")).unwrap();
    let groups = json["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 8);
    for group in groups.iter().chain([&json["total"]]) {
        let causes = group["causes_usd"].as_object().unwrap();
        let sum: Decimal = causes.values().map(decimal).sum();
        assert_eq!(sum, decimal(&group["difference_usd"]), "{group}");
        let difference = decimal(&group["cost_usd"]) - decimal(&group["average_usd"]);
        assert_eq!(sum, difference, "{group}");
    }
    let of = |team: &str| groups.iter().find(|group| group["team"] == team).unwrap();
    let chief = |team: &str| {
        let causes = of(team)["causes_usd"].as_object().unwrap().clone();
        let moved = causes
            .into_iter()
            .filter(|(_, usd)| !decimal(usd).is_zero());
        moved.map(|(cause, _)| cause).collect::<Vec<_>>()
    };
    assert_eq!(chief("red"), ["models"]);
    assert_eq!(chief("blue"), ["requests"]);
    assert_eq!(chief("green"), ["cache"]);
    assert_eq!(chief("grey"), ["requests"]);
    assert_eq!(chief("amber"), ["retries"]);
    assert_eq!(chief("violet"), ["price"]);
    // Two calls with 200 tokens each that cost two millionths of a dollar more.
    assert_eq!(of("violet")["causes_usd"]["price"], "0.0008");
    assert_eq!(json["compared_days"], 7);
    assert_eq!(json["total"]["unpriced_requests"], 1);

    let html = daily("html");
    assert!(!html.contains("<script"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(html.contains("Content-Security-Policy"));
}

#[test]
fn budgets_stand_as_they_were_at_the_days_end() {
    let week = Week::start();
    let json = week.told(&["daily", "--day", "2026-11-20", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let budgets = json["budgets"].as_array().unwrap();
    let red = &budgets[0];
    assert_eq!(red["budget"], "red-daily");
    // Two calls of 200 + 800 / 10 + 4 * 100 millionths of a dollar, at ten times that.
    assert_eq!(red["spent"], "0.0136");
    assert_eq!(red["left"], "-0.0036");
    assert_eq!(red["used_percent"], "136.0");
    assert_eq!(
        (&red["tier"], &red["tier_percent"]),
        (&json!("deny"), &json!("100"))
    );
    let each = budgets
        .iter()
        .filter(|state| state["budget"] == "each-team");
    let spent: BTreeMap<&str, &str> = each
        .map(|state| {
            assert_eq!(state["window_start"], "2026-10-31T23:00:00.000Z");
            let team = state["key"]["team"].as_str().unwrap();
            (team, state["spent"].as_str().unwrap())
        })
        .collect();
    assert_eq!(spent["blue"], "30");
    assert_eq!(spent["grey"], "7");
    let idle = budgets.last().unwrap();
    assert_eq!((&idle["spent"], &idle["tier"]), (&json!("0"), &json!(null)));

    let mut check = Command::new(BINARY);
    let check = check.args(["check", "--config"]).arg(week.config());
    let check = check.output().unwrap();
    let told = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(1), "{told}");
    assert!(
        told.contains("budget \"idle\": nothing is ever done"),
        "{told}"
    );

    let earlier = week.told(&["daily", "--day", "2026-11-13", "--format", "json"]);
    let earlier: Value = serde_json::from_str(&earlier).unwrap();
    assert_eq!(earlier["compared_days"], 0);
    assert_eq!(earlier["total"]["difference_usd"], json!(null));
    assert_eq!(earlier["budgets"][0]["spent"], "0.00136");
}

#[test]
fn who_pays_is_told_with_shares() {
    let week = Week::start();
    let span = ["--from", "2026-11-20", "--to", "2026-11-21"];
    let told = |more: &[&str]| week.told(&[&["--chargeback"], more, &span].concat());
    insta::assert_snapshot!("chargeback", told(&[]));
    insta::assert_snapshot!("chargeback.csv", told(&["--format", "csv"]));
    let page = told(&["--format", "html"]);
    assert!(page.contains("LLM spend by team, cost_center, 2026-11-20T00:00:00.000Z to"));
    assert!(!page.contains("<script"), "{page}");
}

#[test]
fn focus_rows_add_up_to_the_ledger() {
    let week = Week::start();
    let output = week.report(&["--format", "focus", "--billing-account", "acme-1"]);
    // One call has no price, which is a finding.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("tollmesh: 1 requests have no price"),
        "{told}"
    );
    let mut reader = csv::Reader::from_reader(output.stdout.as_slice());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    let number = |row: &BTreeMap<String, String>, column: &str| -> Decimal {
        row[column]
            .parse()
            .unwrap_or_else(|_| panic!("{column}: {:?}", row[column]))
    };
    let sum: Decimal = rows.iter().map(|row| number(row, "BilledCost")).sum();
    let all = week.process.json("/api/v1/spend");
    assert_eq!(sum, decimal(&all["items"][0]["cost_usd"]));
    for row in &rows {
        let list = number(row, "ListUnitPrice") * number(row, "PricingQuantity");
        assert_eq!(list, number(row, "ListCost"), "{row:?}");
        let contracted = number(row, "ContractedUnitPrice") * number(row, "PricingQuantity");
        assert_eq!(contracted, number(row, "ContractedCost"), "{row:?}");
        assert_eq!(row["PricingUnit"], "1000000 Tokens");
        assert_eq!(row["ServiceCategory"], "AI and Machine Learning");
        assert_eq!(row["BillingPeriodStart"], "2026-11-01T00:00:00Z");
        assert_eq!(row["BillingPeriodEnd"], "2026-12-01T00:00:00Z");
        assert_eq!(row["SubAccountId"], "shop");
        serde_json::from_str::<Value>(&row["Tags"]).unwrap();
    }
    let blue = |row: &&BTreeMap<String, String>| {
        row["Tags"].contains("blue")
            && row["ChargePeriodStart"] == "2026-11-20T00:00:00Z"
            && row["SkuMeter"] == "Cache Read Tokens"
    };
    insta::assert_debug_snapshot!("focus_row", rows.iter().find(blue).unwrap());
}

#[test]
fn a_contract_shows_beside_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let terms = "schema = 1\n[[override]]\nid = \"deal\"\nwhen = { provider = \"acme\" }\n\
                 times = \"0.75\"\n";
    let (prices, terms) = (file("acme.toml", PRICES), file("own.toml", terms));
    let more = format!("pricing = [{prices:?}]\noverrides = {terms:?}");
    let process = Process::start(dir.path(), &more);
    let usage = json!({ "input": 333, "cache_read": 77, "output": 1 });
    let (day, team, n, model) = (20, "red", 3, "small");
    let events: Vec<Value> = calls(&Calls {
        day,
        team,
        n,
        model,
        usage,
    });
    process.send(&events);
    let week = Week { dir, process };
    let csv = week.told(&["--format", "focus"]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    let sum = |column: &str| -> Decimal {
        rows.iter()
            .map(|row| row[column].parse::<Decimal>().unwrap())
            .sum()
    };
    let list = Decimal::new(3 * 3_447, 7);
    assert_eq!(sum("ListCost"), list);
    assert_eq!(sum("BilledCost"), list * Decimal::new(75, 2));
    assert_eq!(sum("ContractedCost"), sum("BilledCost"));
}

#[test]
fn questions_that_cannot_be_asked_say_why() {
    let week = Week::start();
    for (arguments, message) in [
        (
            &["--format", "csv"][..],
            "nothing to report by: add --by team,model, --chargeback or --format focus, or ask \
             for `tollmesh report daily`",
        ),
        (
            &["--format", "focus", "--by", "team"],
            "--format focus has its own rows; remove --by, --chargeback and --interval",
        ),
        (
            &["daily", "--day", "tomorrow"],
            "day: unknown day \"tomorrow\"; expected such as 2026-11-21, yesterday or today",
        ),
        (
            &["daily", "--day", "9999-01-01"],
            "day: 9999-01-01 has not begun; expected a day up to today",
        ),
        (
            &["daily", "--budgets", "/no/such/file"],
            "/no/such/file: cannot be read: No such file or directory (os error 2); check the path",
        ),
    ] {
        let output = week.report(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told, format!("tollmesh: {message}\n"));
    }
}
