//! The Grafana dashboards that ship, and the rules' expressions: nothing in them is unknown to
//! Prometheus, to a running pipeline, or to who looks at a panel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::monitoring::{Exposed, folder, promtool, rules};
use tollmesh_tests::promql::names_in;
use tollmesh_tests::{Mesh, artifacts, http, usage};

/// What an expression may use beside the dashboard's own variables, and what stands for it where
/// the expression is checked.
const BUILT_IN: &[(&str, &str)] = &[("$__rate_interval", "5m"), ("$__range", "1h")];

/// Labels that Prometheus or its operator gives to what it scrapes.
const OF_TARGETS: &[&str] = &["instance", "job", "namespace", "pod"];

/// A budget in dollars, and one whose keys are no labels.
const BUDGETS: &str = r#"
[[budget]]
name = "red-day"
match = { team = "red" }
limit = "1 USD"
window = "day"
[[budget]]
name = "users-day"
per = ["user"]
limit = "1 USD"
window = "day"
"#;

/// A dashboard with its file's name.
struct Dashboard {
    file: String,
    body: Value,
}

/// Where in a dashboard an expression stands.
struct Expression {
    place: String,
    text: String,
}

impl Dashboard {
    fn all() -> Vec<Dashboard> {
        let files = fs::read_dir(folder("dashboards")).expect("the folder of dashboards");
        let paths = files.map(|file| file.expect("an entry").path());
        let mut all: Vec<Dashboard> = paths
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .map(|path| Dashboard {
                body: serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON"),
                file: path.file_name().expect("a name").to_string_lossy().into(),
            })
            .collect();
        all.sort_by(|one, other| one.file.cmp(&other.file));
        assert!(all.len() >= 7, "{} dashboards", all.len());
        all
    }

    fn variables(&self) -> &[Value] {
        let list = self.body["templating"]["list"].as_array();
        list.map(Vec::as_slice).unwrap_or_default()
    }

    /// Panels that show something.
    fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = self.body["panels"].as_array().into_iter().flatten();
        panels.filter(|panel| panel["type"] != "row")
    }

    /// What panels ask.
    fn expressions(&self) -> Vec<Expression> {
        let mut all = Vec::new();
        for panel in self.panels() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                all.push(Expression {
                    place: format!("{}, {}, {}", self.file, panel["title"], target["refId"]),
                    text: target["expr"].as_str().unwrap_or_default().to_string(),
                });
            }
        }
        all
    }

    /// What its variables' values are asked with, as expressions.
    fn questions(&self) -> Vec<Expression> {
        let queries = self.variables().iter().filter(|v| v["type"] == "query");
        let questions = queries.map(|variable| {
            let query = variable["query"]["query"].as_str().unwrap_or_default();
            let inner = query.strip_prefix("label_values(");
            let inner = inner.and_then(|rest| rest.strip_suffix(')'));
            let (series, label) = inner
                .and_then(|rest| rest.rsplit_once(", "))
                .unwrap_or(("", ""));
            Expression {
                place: format!("{}, variable {}", self.file, variable["name"]),
                text: format!("count by ({label}) ({series})"),
            }
        });
        questions.collect()
    }

    /// The expression as Grafana sends it, with all variables filled in.
    fn filled_in(&self, expression: &str) -> String {
        let own = self.variables().iter().filter_map(|v| v["name"].as_str());
        let own = own.map(|name| (format!("${name}"), ".*"));
        let built_in = BUILT_IN
            .iter()
            .map(|(name, value)| (name.to_string(), *value));
        let mut variables: Vec<(String, &str)> = built_in.chain(own).collect();
        // Longer names first, since one may begin like another.
        variables.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        variables
            .iter()
            .fold(expression.to_string(), |text, (name, value)| {
                text.replace(name, value)
            })
    }
}

/// What is wrong, as lines of place and fault.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, is_right: bool, place: &str, fault: &str) {
        if !is_right {
            self.0.push(format!("{place}: {fault}"));
        }
    }

    #[track_caller]
    fn are_none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

fn is_said(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

#[test]
fn dashboards_can_be_told_apart_and_found() {
    let mut faults = Faults::default();
    let mut uids = BTreeSet::new();
    for Dashboard { file, body } in Dashboard::all() {
        let uid = body["uid"].as_str().unwrap_or_default().to_string();
        faults.unless(uid.starts_with("tollmesh-"), &file, "its uid is not ours");
        faults.unless(uids.insert(uid), &file, "another has its uid");
        let title = body["title"].as_str().unwrap_or_default();
        faults.unless(
            title.starts_with("Tollmesh / "),
            &file,
            "its title is not ours",
        );
        faults.unless(
            is_said(&body["description"]),
            &file,
            "it has no description",
        );
        faults.unless(body["tags"][0] == "tollmesh", &file, "it has no tag");
        // Who edits one that is provisioned loses it at the next start.
        faults.unless(body["editable"] == false, &file, "it can be edited");
        faults.unless(
            body["links"][0]["tags"][0] == "tollmesh",
            &file,
            "no way to the others",
        );
    }
    faults.are_none();
}

#[test]
fn variables_are_declared_used_and_asked_anew() {
    let mut faults = Faults::default();
    for dashboard in Dashboard::all() {
        let file = &dashboard.file;
        let names: Vec<&str> = dashboard
            .variables()
            .iter()
            .filter_map(|variable| variable["name"].as_str())
            .collect();
        let needed: &[&str] = match file.as_str() {
            "budgets.json" => &["datasource", "budget"],
            "pipeline.json" => &["datasource", "namespace", "instance"],
            _ => &["datasource", "namespace", "team"],
        };
        for name in needed {
            faults.unless(names.contains(name), file, &format!("no variable {name}"));
        }
        for variable in dashboard.variables() {
            let name = variable["name"].as_str().unwrap_or_default();
            let place = format!("{file}, variable {name}");
            faults.unless(is_said(&variable["label"]), &place, "no label");
            if variable["type"] == "datasource" {
                faults.unless(
                    variable["query"] == "prometheus",
                    &place,
                    "not a Prometheus",
                );
                continue;
            }
            faults.unless(
                variable["refresh"] == 2,
                &place,
                "not asked when the time changes",
            );
            faults.unless(
                variable["datasource"]["uid"] == "${datasource}",
                &place,
                "its source",
            );
            faults.unless(
                variable["allValue"] == ".*",
                &place,
                "all leaves out the empty one",
            );
            let uses = dashboard.expressions();
            let is_used = uses
                .iter()
                .any(|use_| use_.text.contains(&format!("${name}")));
            faults.unless(is_used, &place, "no panel uses it");
        }
        for expression in dashboard.expressions() {
            let filled_in = dashboard.filled_in(&expression.text);
            faults.unless(
                !filled_in.contains('$'),
                &expression.place,
                "an unknown variable",
            );
        }
    }
    faults.are_none();
}

#[test]
fn panels_say_what_they_show_and_in_what_unit() {
    let mut faults = Faults::default();
    for dashboard in Dashboard::all() {
        let mut ids = BTreeSet::new();
        for panel in dashboard.panels() {
            let place = format!("{}, {}", dashboard.file, panel["title"]);
            faults.unless(
                ids.insert(panel["id"].as_u64()),
                &place,
                "another has its id",
            );
            faults.unless(is_said(&panel["title"]), &place, "no title");
            faults.unless(is_said(&panel["description"]), &place, "no description");
            let unit = &panel["fieldConfig"]["defaults"]["unit"];
            faults.unless(is_said(unit), &place, "no unit");
            faults.unless(
                panel["datasource"]["uid"] == "${datasource}",
                &place,
                "its source",
            );
            let targets = panel["targets"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            faults.unless(!targets.is_empty(), &place, "it asks nothing");
            for target in targets {
                let has_legend = panel["type"] != "timeseries" || is_said(&target["legendFormat"]);
                faults.unless(has_legend, &place, "a line without a legend");
                let source = &target["datasource"]["uid"];
                faults.unless(source == "${datasource}", &place, "a target's source");
            }
        }
    }
    faults.are_none();
}

#[test]
fn panels_do_not_lie_upon_each_other() {
    let mut faults = Faults::default();
    for dashboard in Dashboard::all() {
        let mut taken = BTreeMap::new();
        for panel in dashboard.body["panels"].as_array().into_iter().flatten() {
            let place = format!("{}, {}", dashboard.file, panel["title"]);
            let side = |name: &str| panel["gridPos"][name].as_u64().unwrap_or(99);
            let (x, y, w, h) = (side("x"), side("y"), side("w"), side("h"));
            faults.unless(x + w <= 24, &place, "wider than the grid");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                if let Some(other) = taken.insert(cell, place.clone()) {
                    faults.unless(false, &place, &format!("on {other}"));
                    break;
                }
            }
        }
    }
    faults.are_none();
}

#[test]
fn counters_are_seen_by_their_increase() {
    let mut faults = Faults::default();
    for expression in Dashboard::all().iter().flat_map(Dashboard::expressions) {
        let Expression { place, text } = expression;
        let rates = text.match_indices("rate(").map(|(at, _)| &text[at..]);
        for rate in rates {
            let range = rate.split_once('[').map(|(_, range)| range).unwrap_or("");
            let is_whole = range.starts_with("$__rate_interval]");
            faults.unless(
                is_whole,
                &place,
                "a rate over less than Grafana has points for",
            );
        }
        for metric in names_in(&text).metrics {
            let is_counter = ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .any(|end| metric.ends_with(end));
            if !is_counter {
                continue;
            }
            for (at, _) in text.match_indices(&metric) {
                let before = &text[..at];
                let is_change = before.ends_with("rate(") || before.ends_with("increase(");
                faults.unless(is_change, &place, &format!("{metric} since its begin"));
            }
        }
    }
    faults.are_none();
}

#[test]
fn promtool_takes_each_expression() {
    let Ok(program) = artifacts::prometheus().inspect_err(|missing| artifacts::skip(missing))
    else {
        return;
    };
    let mut rules = String::from("groups:\n- name: dashboards\n  rules:\n");
    let mut n_expressions = 0;
    for dashboard in Dashboard::all() {
        let questions = dashboard.questions();
        for expression in dashboard.expressions().into_iter().chain(questions) {
            n_expressions += 1;
            let text = dashboard.filled_in(&expression.text);
            // JSON's texts are YAML's. The label tells promtool's complaint where it belongs.
            rules.push_str(&format!(
                "  - {{ record: 'n{n_expressions}', expr: {}, labels: {{ place: {} }} }}\n",
                Value::from(text),
                Value::from(expression.place),
            ));
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("dashboards.yaml"), rules).expect("a file");
    let said = promtool(&program, dir.path(), &["check", "rules", "dashboards.yaml"]);
    let said = said.expect("expressions without fault");
    assert!(
        said.contains(&format!("{n_expressions} rules found")),
        "{said}"
    );
}

#[test]
fn each_metric_and_label_exists() {
    let Some(mesh) = Mesh::start() else { return };
    let recorded: BTreeSet<String> = rules()
        .expect("rules")
        .into_iter()
        .filter(|rule| rule.severity.is_none())
        .map(|rule| rule.name)
        .collect();
    let exposed = exposed(&mesh);
    let mut faults = Faults::default();
    let of_rules = rules().expect("rules").into_iter().map(|rule| Expression {
        place: rule.name,
        text: rule.expression,
    });
    let of_dashboards = Dashboard::all().into_iter().flat_map(|dashboard| {
        let mut all = dashboard.expressions();
        all.extend(dashboard.questions());
        for expression in &mut all {
            expression.text = dashboard.filled_in(&expression.text);
        }
        all
    });
    let mut n_names = 0;
    for Expression { place, text } in of_rules.chain(of_dashboards) {
        let names = names_in(&text);
        n_names += names.metrics.len();
        for metric in names.metrics {
            let is_known = exposed.has(&metric) || recorded.contains(&metric);
            faults.unless(is_known, &place, &format!("no metric {metric}"));
        }
        for label in names.labels {
            let is_known = exposed.labels.contains(&label) || OF_TARGETS.contains(&label.as_str());
            faults.unless(is_known, &place, &format!("no label {label}"));
        }
    }
    faults.are_none();
    assert!(n_names > 150, "{n_names} names");
}

/// What a pipeline shows that metered a call, and what its sources declare beside.
fn exposed(mesh: &Mesh) -> Exposed {
    let budgets = mesh.dir().join("budgets.toml");
    fs::write(&budgets, BUDGETS).expect("a file");
    mesh.aggregator()
        .configure(&format!("budgets = {budgets:?}"))
        .expect("it starts with budgets");
    let exchange = Dialect::Anthropic.plain(&usage("claude-sonnet-4-5").input(10).output(5));
    let client = mesh
        .client("red")
        .tag("feature", "f")
        .tag("environment", "e")
        .tag("user", "u");
    let answer = client.call(&exchange);
    mesh.ledger().row_of(&answer);
    let mut exposed = Exposed::default();
    exposed.add(&mesh.aggregator().metrics().expect("a scrape").0);
    for name in ["tollmesh_cost_usd_total", "tollmesh_ledger_writable"] {
        assert!(exposed.has(name), "{exposed:?}");
    }
    let envoy = eventually("Envoy's counters of the filter", || {
        let admin = mesh.envoy().admin();
        let reply = mesh
            .runtime()
            .block_on(http::get(admin, "/stats/prometheus"));
        let text = reply.map_err(|error| format!("{error:#}"))?.text();
        match text.contains("tollmesh_filter_events_sent_total{} 1") {
            true => Ok(text),
            false => Err(text),
        }
    });
    exposed.add(&envoy);
    exposed.add_declared().expect("sources");
    exposed
}
