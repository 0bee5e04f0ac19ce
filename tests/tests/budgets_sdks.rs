//! Official SDKs behind the mesh: their own rate-limit errors on a refusal, and cheaper models.

use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Exchange, Mesh, artifacts, usage};

/// Team red has spent its day with the first call; team blue has spent enough for a cheaper model.
const BUDGETS: &str = r#"
[[budget]]
name = "red-daily"
match = { team = "red" }
limit = "0.01 USD"
window = "day"
enforce = "cached"
tiers = [ { at = "100%", do = "deny" } ]

[[budget]]
name = "blue-daily"
match = { team = "blue" }
limit = "0.01 USD"
window = "day"
enforce = "cached"
tiers = [ { at = "50%", do = "downgrade", models = { "gpt-4o" = "gpt-4o-mini", "claude-sonnet-4-5" = "claude-haiku-4-5" } } ]
"#;

/// One provider as its SDK is used.
struct Sdk {
    name: &'static str,
    dialect: Dialect,
    host: &'static str,
    base_path: &'static str,
    model: &'static str,
    cheaper: &'static str,
}

const SDKS: [Sdk; 2] = [
    Sdk {
        name: "openai",
        dialect: Dialect::OpenAiChat,
        host: "api.openai.com",
        base_path: "/v1",
        model: "gpt-4o",
        cheaper: "gpt-4o-mini",
    },
    Sdk {
        name: "anthropic",
        dialect: Dialect::Anthropic,
        host: "api.anthropic.com",
        base_path: "",
        model: "claude-sonnet-4-5",
        cheaper: "claude-haiku-4-5",
    },
];

impl Sdk {
    /// What an app sees that asks once.
    fn asks(&self, mesh: &Mesh, sdks: &std::path::Path, team: &str, id: &str) -> Value {
        let base_url = format!("http://{}{}", mesh.envoy().listener(), self.base_path);
        let output = Command::new("python3")
            .arg(artifacts::root().join("tests/sdks/ask.py"))
            .args([self.name, &base_url, self.host, self.model, team, id])
            .env("PYTHONPATH", sdks)
            .output()
            .expect("python3 runs");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    fn answer(&self, model: &str) -> Exchange {
        self.dialect.plain(&usage(model).input(900).output(900))
    }
}

/// Spends what the team has, and waits until each worker knows.
fn spend(mesh: &Mesh, team: &str, is_told: impl Fn(&tollmesh_tests::Answer) -> bool) {
    let exchange = Dialect::OpenAiChat.plain(&usage("gpt-4o").input(900).output(900));
    mesh.every_worker_knows("the tier", || {
        let answer = mesh.client(team).call(&exchange);
        is_told(&answer).then_some(answer)
    });
}

#[test]
fn official_clients_raise_their_own_error_once_and_take_cheaper_models() {
    let sdks = match artifacts::sdks() {
        Ok(sdks) => sdks,
        Err(missing) => return artifacts::skip(&missing),
    };
    let Some(mesh) = Mesh::built().budgets(BUDGETS).start() else {
        return;
    };
    spend(&mesh, "red", |answer| answer.status == Some(429));
    spend(&mesh, "blue", |answer| {
        answer.header("x-tollmesh-budget").is_some()
    });
    for sdk in &SDKS {
        let id = format!("{}-refused", sdk.name);
        let seen = sdk.asks(&mesh, &sdks, "red", &id);
        assert_eq!(seen["error"], "RateLimitError", "{seen}");
        assert_eq!(
            (&seen["module"], &seen["status"]),
            (&sdk.name.into(), &429.into())
        );
        let message = seen["message"].as_str().unwrap_or_default();
        for fact in ["red-daily", "0.01 USD", "day", "resets at"] {
            assert!(message.contains(fact), "{fact}: {message}");
        }
        let budget = seen["headers"]["x-tollmesh-budget"].as_str();
        assert!(budget.is_some_and(|b| b.starts_with("red-daily; reason=budget_exceeded")));
        let rows = rows_of(&mesh, &id);
        assert_eq!(rows.len(), 1, "an SDK that tries again has more rows");
        assert_eq!(rows[0]["outcome"], "denied");

        let id = format!("{}-cheaper", sdk.name);
        mesh.provider()
            .script(&id, Arc::new(sdk.answer(sdk.cheaper)));
        let seen = sdk.asks(&mesh, &sdks, "blue", &id);
        assert_eq!(seen["model"], sdk.cheaper, "{seen}");
        let received = mesh.provider().received(&id);
        let body: Value = serde_json::from_slice(&received[0].body).expect("is JSON");
        assert_eq!(body["model"], sdk.cheaper);
        let rows = rows_of(&mesh, &id);
        assert_eq!(rows[0]["model_requested"], sdk.model);
        assert_eq!(rows[0]["model"], sdk.cheaper);
        assert_eq!(rows[0]["cost_status"], "exact", "{}", rows[0]);
        let priced = rows[0]["price_row"].as_str().unwrap_or_default();
        assert!(priced.contains(sdk.cheaper), "{priced}");
    }
    mesh.has_not_trapped();
}

/// The rows of a call, once there is one.
fn rows_of(mesh: &Mesh, id: &str) -> Vec<Value> {
    eventually("a row", || {
        let rows = mesh.ledger().rows().map_err(|error| error.to_string())?;
        let of = rows
            .into_iter()
            .filter(|row| row.text("request_id") == Some(id));
        let rows: Vec<Value> = of.map(|row| row.0).collect();
        (!rows.is_empty()).then_some(rows).ok_or("none".to_string())
    })
}
