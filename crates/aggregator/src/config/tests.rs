//! Each wrong key of `tollmesh.toml`, with the whole message that it gets.

use std::path::Path;

use super::*;

fn messages(text: &str) -> String {
    match Config::parse("tollmesh.toml", text, Some(Path::new("/state"))) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = Config::parse("tollmesh.toml", "", Some(Path::new("/state"))).unwrap();
    assert_eq!(config.state_dir, Path::new("/state"));
    assert_eq!(config.ingest.to_string(), "127.0.0.1:4100");
    assert_eq!(config.operator.listen.to_string(), "127.0.0.1:4101");
    assert_eq!(config.drain, Duration::from_secs(10));
    assert_eq!(config.metrics.labels, ["team", "feature", "environment"]);
    assert_eq!(config.metrics.max_values_per_label, 100);
    assert_eq!(config.metrics.max_series, 10_000);
    assert_eq!(config.retention_days, 90);
    assert_eq!(config.retention_bytes_max, None);
    assert_eq!(config.overrides, None);
}

#[test]
fn a_full_file_is_taken() {
    let text = r#"
        state_dir = "/var/lib/elsewhere"
        pricing = ["/etc/tollmesh/pricing"]
        overrides = "/etc/tollmesh/overrides.toml"
        drain = "500ms"
        [ingest]
        listen = "unix:/run/tollmesh/ingest.sock"
        [operator]
        listen = "0.0.0.0:4101"
        token_file = "/etc/tollmesh/token"
        hosts = ["spend.example.com"]
        [metrics]
        labels = []
        max_values_per_label = 5
        max_series = 200
        [retention]
        days = 7
        max_size = "10 GB"
        [redis]
        url = "rediss://tollmesh@redis.example:6380/2"
        password_file = "/etc/tollmesh/redis-password"
        ca_file = "/etc/tollmesh/ca.pem"
        cluster = true
        prefix = "prod"
        [postgres]
        url = "postgres://tollmesh@db.example:6432/costs"
        password_file = "/etc/tollmesh/password"
        ca_file = "/etc/tollmesh/ca.pem"
        interval = "1m"
        retention_months = 25
        [otlp]
        endpoint = "https://otlp.example/base"
        headers = { x-dataset = "llm" }
        headers_file = "/etc/tollmesh/otlp-headers"
        ca_file = "/etc/tollmesh/ca.pem"
        signals = ["traces", "logs", "metrics"]
        cost_attribute = "gen_ai.usage.cost.amount"
        interval = "1s"
    "#;
    let config = Config::parse("tollmesh.toml", text, None).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/elsewhere"));
    assert_eq!(config.drain, Duration::from_millis(500));
    assert_eq!(config.operator.hosts, ["spend.example.com"]);
    assert!(config.metrics.labels.is_empty());
    assert_eq!(config.retention_days, 7);
    assert_eq!(config.retention_bytes_max, Some(10_000_000_000));
    let overrides = config.overrides.as_deref();
    assert_eq!(overrides, Some(Path::new("/etc/tollmesh/overrides.toml")));
    let redis = config.redis.unwrap();
    assert_eq!(redis.to_string(), "rediss://redis.example:6380");
    assert_eq!(redis.key_prefix(), "prod");
    let postgres = config.postgres.unwrap();
    assert_eq!(
        postgres.place.to_string(),
        "postgres://db.example:6432/costs"
    );
    assert_eq!(postgres.interval, Duration::from_secs(60));
    assert_eq!(postgres.retention_months, 25);
    let otlp = config.otlp.unwrap();
    assert_eq!(otlp.endpoint.to_string(), "https://otlp.example/base");
    assert_eq!(otlp.interval, Duration::from_secs(1));
    assert_eq!(otlp.signals.len(), 3);
    let over = Config::parse("tollmesh.toml", text, Some(Path::new("/s"))).unwrap();
    assert_eq!(over.state_dir, Path::new("/s"));
}

#[test]
fn every_mistake_has_its_message() {
    for (text, expected) in [
        (
            "state_dir = \"state\"",
            r#"tollmesh.toml: state_dir: "state" is a relative path; expected an absolute one"#,
        ),
        (
            "pricing = \"/etc/p\"",
            r#"tollmesh.toml: pricing: found "/etc/p"; expected a list of strings"#,
        ),
        (
            "drain = \"soon\"",
            "tollmesh.toml: drain: unknown duration \"soon\"; expected such as \"500ms\", \
             \"10s\" or \"2m\"",
        ),
        (
            "drain = \"2h\"",
            r#"tollmesh.toml: drain: "2h" is too long; expected at most "1h""#,
        ),
        (
            "drain = 10",
            "tollmesh.toml: drain: found 10; expected a string",
        ),
        (
            "ingest = 3",
            "tollmesh.toml: ingest: found 3; expected a table",
        ),
        (
            "[ingest]\nlisten = \"4100\"",
            "tollmesh.toml: ingest.listen: unknown address \"4100\"; expected \"ADDRESS:PORT\" \
             or \"unix:/PATH\"",
        ),
        (
            "[ingest]\nlisten = \"unix:x\"",
            "tollmesh.toml: ingest.listen: \"unix:x\" has no absolute path; expected \
             \"ADDRESS:PORT\" or \"unix:/PATH\"",
        ),
        (
            "[ingest]\nlisten = \"0.0.0.0:4101\"",
            "tollmesh.toml: operator.listen: 0.0.0.0:4101 is where ingest.listen is; give each an \
             address of its own",
        ),
        (
            "[operator]\nlisen = \"127.0.0.1:1\"",
            "tollmesh.toml: operator.lisen: unknown key; did you mean \"listen\"? expected \
             \"listen\", \"token_file\" or \"hosts\"",
        ),
        (
            "[operator]\ntoken = \"s3cret\"",
            "tollmesh.toml: operator.token: unknown key; expected \"listen\", \
             \"token_file\" or \"hosts\"",
        ),
        (
            "[retention]\nmax_size = \"10 GP\"",
            "tollmesh.toml: retention.max_size: unknown size \"10 GP\"; expected such as \
             \"500 MB\", \"10 GB\" or \"10 GiB\"",
        ),
        (
            "[retention]\nmax_size = \"63 MB\"",
            "tollmesh.toml: retention.max_size: \"63 MB\" is too small; expected at least \
             \"64 MB\"",
        ),
        (
            "[metrics]\nlabels = [\"model\"]",
            "tollmesh.toml: metrics.labels: \"model\" is a label already; remove it",
        ),
        (
            "[metrics]\nlabels = [\"user\"]",
            "tollmesh.toml: metrics.labels: \"user\" would make a series for each one; remove it \
             and ask `tollmesh report --by user`",
        ),
        (
            "[metrics]\nlabels = [\"cost centre\"]",
            "tollmesh.toml: metrics.labels: \"cost centre\" is no label name; expected lower-case \
             letters, digits and \"_\"",
        ),
        (
            "[metrics]\nlabels = [\"team\", \"team\"]",
            "tollmesh.toml: metrics.labels: \"team\" stands twice; remove one",
        ),
        (
            "[metrics]\nmax_series = 10",
            "tollmesh.toml: metrics.max_series: found 10; expected a number of series from 200 to \
             1000000",
        ),
        (
            "[metrics]\nmax_values_per_label = -1",
            "tollmesh.toml: metrics.max_values_per_label: found -1; expected a number of values \
             from 1 to 10000",
        ),
        (
            "[retention]\ndays = 0",
            "tollmesh.toml: retention.days: found 0; expected a number of days from 1 to 3660",
        ),
        (
            "budgets = \"budgets.toml\"",
            "tollmesh.toml: budgets: \"budgets.toml\" is a relative path; expected an absolute one",
        ),
        (
            "[postgres]\nurl = \"db.example\"",
            "tollmesh.toml: postgres.url: not a URL of PostgreSQL; expected such as \
             \"postgres://tollmesh@db.example:5432/tollmesh\"",
        ),
        (
            "[postgres]\ninterval = \"1m\"",
            "tollmesh.toml: postgres.url: missing; name the database, or remove the section",
        ),
        (
            "[postgres]\nurl = \"postgres://u:secret@db/x\"\npassword_file = \"/p\"",
            "tollmesh.toml: postgres.password_file: the URL holds a password too; remove that one",
        ),
        (
            "[postgres]\nurl = \"postgres://u@db/x\"\ninterval = \"2h\"",
            "tollmesh.toml: postgres.interval: \"2h\" is out of bounds; expected from \"100ms\" \
             to \"1h\"",
        ),
        (
            "[postgres]\nurl = \"postgres://u@db/x\"\nretention_months = 0",
            "tollmesh.toml: postgres.retention_months: found 0; expected a number of months from 1 \
             to 120",
        ),
        (
            "[otlp]\nsignals = [\"traces\"]",
            "tollmesh.toml: otlp.endpoint: missing; name the receiver, or remove the section",
        ),
        (
            "[otlp]\nendpoint = \"collector:4318\"",
            "tollmesh.toml: otlp.endpoint: not an http:// or https:// URL; expected one such as \
             \"http://collector:4318\"",
        ),
        (
            "[otlp]\nendpoint = \"http://c\"\nsignals = [\"spans\"]",
            "tollmesh.toml: otlp.signals: unknown signal \"spans\"; expected \"traces\", \"logs\" or \
             \"metrics\"",
        ),
        (
            "[otlp]\nendpoint = \"http://c\"\nsignals = []",
            "tollmesh.toml: otlp.signals: names nothing; expected any of \"traces\", \"logs\" or \
             \"metrics\"",
        ),
        (
            "[otlp]\nendpoint = \"http://c\"\nca_file = \"/ca.pem\"",
            "tollmesh.toml: otlp.ca_file: the endpoint is not encrypted; use https://, or remove \
             the file",
        ),
        (
            "[otlp]\nendpoint = \"http://c\"\ncost_attribute = \"cost\"",
            "tollmesh.toml: otlp.cost_attribute: unknown attribute \"cost\"; expected \
             \"gen_ai.usage.cost\" or \"gen_ai.usage.cost.amount\"",
        ),
        (
            "[otlp]\nendpoint = \"http://c\"\nheaders = { \"content-type\" = \"text/plain\" }",
            "tollmesh.toml: otlp.headers: \"content-type\" is set by the exporter itself",
        ),
        (
            "[redis]\nurl = \"redis.example:6379\"",
            "tollmesh.toml: redis.url: not a URL of Redis; expected such as \
             \"redis://redis.example:6379\", or \"rediss://…\" for TLS",
        ),
        (
            "[redis]\nurl = \"rediss://x/#insecure\"",
            "tollmesh.toml: redis.url: \"#insecure\" is not taken: certificates are always \
             verified; name their authority in ca_file",
        ),
        (
            "[redis]\ncluster = true",
            "tollmesh.toml: redis.url: missing; name the server, or remove the section",
        ),
        (
            "[redis]\nurl = \"redis://u:secret@x\"\npassword_file = \"/p\"",
            "tollmesh.toml: redis.password_file: the URL holds a password too; remove that one",
        ),
        (
            "[redis]\nurl = \"redis://x\"\nca_file = \"/ca.pem\"",
            "tollmesh.toml: redis.ca_file: the URL is of no TLS; begin it with \"rediss://\"",
        ),
        (
            "[redis]\nurl = \"redis://x\"\ncluster = \"yes\"",
            "tollmesh.toml: redis.cluster: found \"yes\"; expected true or false",
        ),
        (
            "[redis]\nurl = \"redis://x\"\nprefix = \"{a}\"",
            "tollmesh.toml: redis.prefix: \"{a}\" cannot begin a key; expected 1 to 64 letters, \
             digits or \"-_.:\"",
        ),
        (
            "drain = \n",
            "tollmesh.toml: line 1, column 9: not TOML: string values must be quoted, expected \
             literal string",
        ),
    ] {
        assert_eq!(messages(text), expected, "for {text:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "colour = 1\ndrain = 1\n[ingest]\nport = 4100\n[postgres]\nurl = \"\"";
    let keys: Vec<String> = messages(text)
        .lines()
        .map(|line| line.split(": ").nth(1).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(keys, ["drain", "ingest.port", "postgres.url", "colour"]);
}

#[test]
fn the_named_file_holds_else_the_default_where_it_exists() {
    let dir = tempfile::tempdir().unwrap();
    let (named, default) = (Path::new("/named.toml"), dir.path().join("t.toml"));
    assert_eq!(in_use(None, &default), None);
    std::fs::write(&default, "").unwrap();
    assert_eq!(in_use(None, &default), Some(&*default));
    assert_eq!(in_use(Some(named), &default), Some(named));
}

#[test]
fn a_missing_file_says_what_to_do() {
    let error = Config::load(Some(Path::new("/nowhere/t.toml")), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/t.toml: cannot be read: No such file or directory (os error 2); give its path \
         with --config"
    );
}
