//! Calls of which each costs a dollar or two, before budgets of a few.

use tollmesh_usage::Usage;

use super::*;
use crate::config::budgets;

/// `small` at 1 dollar for a million tokens, `large` at 10.
fn prices() -> Prices {
    let model = |id: &str, rate: &str| {
        format!(
            "[[model]]\nid = {id:?}\nmatch = [{id:?}]\nrate = [{{ input = {rate:?}, \
             output = {rate:?}, src = \"list\", checked = 2026-01-09 }}]\n"
        )
    };
    let head = "schema = 1\nprovider = \"maker\"\ncurrency = \"USD\"\n\
                [source]\nlist = \"https://maker.example/prices\"\n";
    let (small, large) = (model("small", "1"), model("large", "10"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("maker.toml");
    std::fs::write(&file, format!("{head}{small}{large}")).unwrap();
    Prices::load(&[file], None).unwrap()
}

/// A call that began so many minutes after noon, of `team` red, of a million tokens of `small`.
fn call(minute: i64) -> Event {
    let noon = "2026-11-20T12:00:00Z".parse::<Timestamp>().unwrap();
    let begin = noon.as_millisecond() + minute * 60_000;
    Event {
        event_id: format!("e{minute}"),
        provider: "maker".into(),
        model: Some("small".into()),
        model_requested: Some("small".into()),
        time: tollmesh_wire::Timestamp::from_unix_ms(begin),
        duration_ms: 1_000,
        usage: Usage::new().with(Bucket::Output, 1_000_000),
        billable: true,
        tags: [("team".to_owned(), "red".to_owned())].into(),
        ..Event::default()
    }
}

fn of(model: &str, event: Event) -> Event {
    Event {
        model: Some(model.into()),
        model_requested: Some(model.into()),
        ..event
    }
}

fn tagged(team: &str, event: Event) -> Event {
    Event {
        tags: [("team".to_owned(), team.to_owned())].into(),
        ..event
    }
}

fn replay(text: &str, from: &str, calls: &[Event]) -> Vec<Replayed> {
    let prices = prices();
    let book = &prices.tables().book;
    let policies = budgets::parse("budgets.toml", text).unwrap();
    let mut replay = Replay::new(policies, from.parse().unwrap(), &prices);
    for event in calls {
        let cost = Bill::from(event).price(book, "v".into()).total;
        replay.pass(event, cost);
    }
    replay.finish()
}

fn budget(more: &str) -> String {
    format!("[[budget]]\nname = \"b\"\nlimit = \"3 USD\"\nwindow = \"day\"\n{more}")
}

const NOON: &str = "2026-11-20T12:00:00Z";
const DENY: &str = "tiers = [ { at = \"100%\", do = \"deny\" } ]";

/// requests, denied, saved, peak in dollars.
fn shown(replayed: &Replayed) -> (u64, u64, String, String) {
    let tally = &replayed.tally;
    let peak = PicoSum::from_pico(tally.peak).to_string();
    (tally.requests, tally.denied, tally.saved.to_string(), peak)
}

fn dollars(requests: u64, denied: u64, saved: &str, peak: &str) -> (u64, u64, String, String) {
    (requests, denied, saved.to_owned(), peak.to_owned())
}

#[test]
fn strict_lets_pass_what_fits() {
    let text = budget(&format!("enforce = \"strict\"\n{DENY}"));
    let calls: Vec<Event> = (0..5).map(call).collect();
    let replayed = replay(&text, NOON, &calls);
    assert_eq!(shown(&replayed[0]), dollars(5, 2, "2", "5"));
    assert_eq!(
        replayed[0].tally.first_denied,
        Some("2026-11-20T12:03:00Z".parse().unwrap())
    );
    assert_eq!(
        (replayed[0].tally.windows, replayed[0].tally.windows_denied),
        (1, 1)
    );

    // A large call that does not fit leaves the room to smaller ones.
    let calls = [call(0), of("large", call(1)), call(2), call(3), call(4)];
    let replayed = replay(&text, NOON, &calls);
    assert_eq!(shown(&replayed[0]), dollars(5, 2, "11", "14"));

    // The lowest tier that denies is the limit.
    let tiers = "tiers = [ { at = \"67%\", do = \"deny\" } ]";
    let text = budget(&format!("enforce = \"strict\"\n{tiers}"));
    let calls: Vec<Event> = (0..5).map(call).collect();
    assert_eq!(
        shown(&replay(&text, NOON, &calls)[0]),
        dollars(5, 3, "3", "5")
    );
}

#[test]
fn cached_sees_only_what_has_ended() {
    let text = budget(&format!("enforce = \"cached\"\n{DENY}"));
    let calls: Vec<Event> = (0..6).map(call).collect();
    assert_eq!(
        shown(&replay(&text, NOON, &calls)[0]),
        dollars(6, 3, "3", "6")
    );
    // Six at once: nobody has ended when the last begins.
    let calls: Vec<Event> = (0..6).map(|_| call(0)).chain([call(1)]).collect();
    assert_eq!(
        shown(&replay(&text, NOON, &calls)[0]),
        dollars(7, 1, "1", "7")
    );
    // One that observes is told of as if it were cached.
    let text = budget(DENY);
    let calls: Vec<Event> = (0..6).map(call).collect();
    assert_eq!(
        shown(&replay(&text, NOON, &calls)[0]),
        dollars(6, 3, "3", "6")
    );
}

#[test]
fn windows_end_and_the_first_is_whole() {
    let text = budget(&format!(
        "timezone = \"Europe/Madrid\"\nenforce = \"strict\"\n{DENY}"
    ));
    // 11 hours after noon UTC is midnight in Madrid.
    let calls: Vec<Event> = [0, 1, 2, 3, 11 * 60 - 1, 11 * 60, 11 * 60 + 1]
        .map(call)
        .into();
    let replayed = replay(&text, "2026-11-20T15:00:00Z", &calls);
    assert_eq!(shown(&replayed[0]), dollars(7, 2, "2", "5"));
    assert_eq!(
        (replayed[0].tally.windows, replayed[0].tally.windows_denied),
        (2, 1)
    );
    // What began before the first window is not looked at.
    let replayed = replay(&text, "2026-11-20T23:30:00Z", &calls);
    assert_eq!(shown(&replayed[0]), dollars(2, 0, "0", "2"));
}

#[test]
fn a_rolling_window_lets_go_of_what_is_old() {
    for enforce in ["strict", "cached"] {
        let text = format!(
            "[[budget]]\nname = \"b\"\nlimit = \"2 USD\"\nwindow = \"rolling 1h\"\n\
             enforce = {enforce:?}\n{DENY}"
        );
        let calls: Vec<Event> = [0, 20, 40, 60, 61, 80, 141].map(call).into();
        let replayed = replay(&text, NOON, &calls);
        // At 40 two are within; at 60 the first has gone, at 61 it is full again, at 80 the second
        // has gone, and at 141 all have.
        assert_eq!(shown(&replayed[0]), dollars(7, 2, "2", "4"), "{enforce}");
    }
}

#[test]
fn each_key_has_the_limit_for_itself() {
    let text = budget(&format!("per = [\"team\"]\nenforce = \"strict\"\n{DENY}"));
    let mut calls: Vec<Event> = (0..5).map(call).collect();
    calls.extend((5..7).map(|n| tagged("blue", call(n))));
    calls.push(Event {
        tags: BTreeMap::new(),
        ..call(8)
    });
    let replayed = replay(&text, NOON, &calls);
    let found: Vec<(&str, u64, u64)> = replayed
        .iter()
        .map(|r| (r.key["team"].as_str(), r.tally.requests, r.tally.denied))
        .collect();
    assert_eq!(found, [("red", 5, 2), ("blue", 2, 0), ("", 1, 0)]);
}

#[test]
fn a_match_an_exception_and_a_criticality_spare_calls() {
    let critical = |n| Event {
        tags: [("team", "red"), ("priority", "critical")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ..call(n)
    };
    let except =
        "tiers = [ { at = \"100%\", do = \"deny\", except = { priority = \"critical\" } } ]";
    let shed = "tiers = [ { at = \"100%\", do = \"shed\" } ]";
    for (enforce, tiers) in [("strict", except), ("cached", except), ("cached", shed)] {
        let more = format!("match = {{ team = \"red\" }}\nenforce = {enforce:?}\n{tiers}");
        let calls = [
            call(0),
            call(1),
            tagged("blue", call(2)),
            call(3),
            critical(4),
            call(5),
        ];
        let replayed = replay(&budget(&more), NOON, &calls);
        assert_eq!(
            shown(&replayed[0]),
            dollars(5, 1, "1", "5"),
            "{enforce} {tiers}"
        );
    }
}

#[test]
fn cheaper_models_and_shorter_answers_are_priced() {
    let downgrade =
        "tiers = [ { at = \"1%\", do = \"downgrade\", models = { large = \"small\" } } ]";
    let text = budget(&format!("enforce = \"cached\"\n{downgrade}"));
    let calls = [of("large", call(0)), of("large", call(1)), call(2)];
    let [replayed] = replay(&text, NOON, &calls).try_into().unwrap();
    assert_eq!(shown(&replayed), dollars(3, 0, "9", "21"));
    assert_eq!((replayed.tally.downgraded, replayed.tally.capped), (1, 0));
    let calls = [of("LARGE", call(0)), of("large", call(1)), call(2)];
    let [replayed] = replay(&text, NOON, &calls).try_into().unwrap();
    assert_eq!(replayed.tally.downgraded, 1, "any case of letters");

    let cap = "tiers = [ { at = \"1%\", do = \"cap_output\", max_tokens = 250000 } ]";
    let text = budget(&format!("enforce = \"cached\"\n{cap}"));
    let calls = [call(0), call(1)];
    let [replayed] = replay(&text, NOON, &calls).try_into().unwrap();
    assert_eq!(shown(&replayed), dollars(2, 0, "0.75", "2"));
    assert_eq!((replayed.tally.downgraded, replayed.tally.capped), (0, 1));
}

#[test]
fn what_one_budget_refuses_is_charged_to_none() {
    let text = format!(
        "{}\n[[budget]]\nname = \"all\"\nlimit = \"4 requests\"\nwindow = \"day\"\n\
         enforce = \"strict\"\n[[budget]]\nname = \"watch\"\nlimit = \"1 USD\"\nwindow = \"day\"\n{DENY}",
        budget(&format!(
            "match = {{ team = \"red\" }}\nenforce = \"strict\"\n{DENY}"
        ))
    );
    let mut calls: Vec<Event> = (0..5).map(call).collect();
    calls.extend((5..7).map(|n| tagged("blue", call(n))));
    let replayed = replay(&text, NOON, &calls);
    let found: Vec<(&str, u64, u64)> = replayed
        .iter()
        .map(|r| (r.budget.as_str(), r.tally.requests, r.tally.denied))
        .collect();
    // Three red calls pass, two are refused by their budget; one blue one passes.
    assert_eq!(found, [("b", 5, 2), ("all", 7, 1), ("watch", 7, 6)]);
}

#[test]
fn calls_without_a_price_and_those_refused_then() {
    let text = budget(&format!("enforce = \"strict\"\n{DENY}"));
    let denied = Event {
        outcome: Outcome::Denied,
        ..call(0)
    };
    let relayed = Event {
        outcome: Outcome::Relayed,
        ..call(0)
    };
    // The dearest rate of its provider is charged: ten dollars.
    let calls = [denied, relayed, of("unheard-of", call(1)), call(2)];
    let [replayed] = replay(&text, NOON, &calls).try_into().unwrap();
    assert_eq!(shown(&replayed), dollars(2, 1, "10", "11"));
    assert_eq!(
        (replayed.tally.denied_then, replayed.tally.unpriced),
        (1, 1)
    );
}

#[test]
fn a_tier_that_throttles_puts_off_what_is_too_fast() {
    let tiers = "tiers = [ { at = \"1%\", do = \"throttle\", requests_per_second = 2 } ]";
    let text = budget(&format!("enforce = \"cached\"\n{tiers}"));
    let mut calls = vec![call(0)];
    calls.extend((0..5).map(|_| call(1)));
    let [replayed] = replay(&text, NOON, &calls).try_into().unwrap();
    assert_eq!((replayed.tally.throttled, replayed.tally.denied), (3, 0));
}
