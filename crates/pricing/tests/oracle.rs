//! Costs of random usage against an oracle that reads the shipped files by itself and reckons in
//! rational numbers.
//!
//! Nothing of the engine is used but the names of buckets: the files are read as plain TOML, rates
//! as fractions, and what stands in for a missing rate is written down here once more.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;
use rust_decimal::Decimal;
use tollmesh_pricing::{Book, Call, Priced, Status};
use tollmesh_usage::{Bucket, Usage};
use toml::{Table, Value};

/// Usages that are compared, over all rows.
const USAGES: usize = 100_000;

/// Any number will do; the same one makes a failure come back.
const SEED: u64 = 0x5EED_0F70_11AE_5511;

const MS_PER_DAY: i64 = 86_400_000;

/// A row as the file has it, with what decides its calls.
struct Fact {
    provider: String,
    model: String,
    tier: String,
    from_day: i64,
    until_day: i64,
    input_min: u64,
    input_max: u64,
    region: Option<String>,
    /// By bucket: what a million tokens cost, and whether the file leaves that open.
    rates: Vec<Option<(BigRational, bool)>>,
    /// The file's modifiers that are for the model.
    factors: Vec<Factor>,
    place: String,
}

/// A modifier with one condition.
#[derive(Clone)]
struct Factor {
    fact: String,
    wanted: Vec<String>,
    from_day: i64,
    until_day: i64,
    times: BigRational,
}

impl Factor {
    fn holds(&self, value: Option<&str>, day: i64) -> bool {
        let fits = |wanted: &String| match (wanted.as_str(), value) {
            ("absent", value) => value.is_none(),
            (_, None) => false,
            ("*", Some(_)) => true,
            (wanted, Some(value)) => match wanted.strip_prefix('!') {
                Some(not) => value != not,
                None => glob(wanted, value),
            },
        };
        self.wanted.iter().any(fits) && self.from_day <= day && day < self.until_day
    }

    /// Some value for which the condition holds.
    fn value(&self) -> String {
        let wanted = self.wanted[0].replace('*', "x");
        match wanted.strip_prefix('!') {
            Some(_) => "elsewhere".to_owned(),
            None => wanted,
        }
    }
}

/// A glob with at most one star.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
    }
}

fn factors(file: &Table, model: &str) -> Vec<Factor> {
    let strings = |value: &Value| match value {
        Value::Array(items) => items
            .iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    };
    let mut factors = Vec::new();
    for modifier in tables(file, "modifier") {
        let models = modifier.get("models").map_or(vec!["*".to_owned()], strings);
        if !models
            .iter()
            .any(|m| glob(&m.to_lowercase(), &model.to_lowercase()))
        {
            continue;
        }
        let when = modifier["when"].as_table().unwrap();
        assert_eq!(when.len(), 1, "the oracle knows one fact a modifier");
        let (fact, wanted) = when.iter().next().unwrap();
        factors.push(Factor {
            fact: fact.clone(),
            wanted: strings(wanted),
            from_day: day(modifier, "from").unwrap_or(i64::MIN),
            until_day: day(modifier, "until").unwrap_or(i64::MAX),
            times: fraction(text(modifier, "times").unwrap()),
        });
    }
    factors
}

/// A generator after Marsaglia (xorshift64*): short, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.throw() % n.max(1)
    }
}

fn fraction(text: &str) -> BigRational {
    let decimal = |text: &str| {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits: BigInt = format!("{whole}{part}").parse().unwrap();
        let places = u32::try_from(part.len()).unwrap();
        BigRational::new(digits, BigInt::from(10u8).pow(places))
    };
    match text.split_once('/') {
        Some((over, under)) => decimal(over) / decimal(under),
        None => decimal(text),
    }
}

fn rational(decimal: Decimal) -> BigRational {
    let scale = BigInt::from(10u8).pow(decimal.scale());
    BigRational::new(BigInt::from(decimal.mantissa()), scale)
}

fn text<'t>(table: &'t Table, key: &str) -> Option<&'t str> {
    table.get(key).and_then(Value::as_str)
}

fn tables<'t>(table: &'t Table, key: &str) -> impl Iterator<Item = &'t Table> {
    let items = table.get(key).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_table)
}

/// Days since 1970 of a date in the file.
fn day(row: &Table, key: &str) -> Option<i64> {
    let date = row.get(key)?.as_datetime()?.date?;
    // Howard Hinnant's count of days in the civil calendar.
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

fn context(row: &Table) -> (u64, u64) {
    let (mut min, mut max) = (0, u64::MAX);
    for bound in text(row, "ctx").into_iter().flat_map(str::split_whitespace) {
        let n: u64 = bound.trim_start_matches(['<', '>', '=']).parse().unwrap();
        match bound.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "<" => max = n - 1,
            "<=" => max = n,
            ">" => min = n + 1,
            ">=" => min = n,
            other => panic!("{other}"),
        }
    }
    (min, max)
}

/// The rate of a bucket, from the row or from what stands in for it.
fn rate(row: &Table, billed_as: &Table, bucket: &str) -> Option<(BigRational, bool)> {
    if let Some(own) = text(row, bucket) {
        return Some((fraction(own), false));
    }
    if let Some(named) = text(billed_as, bucket) {
        return rate(row, billed_as, named);
    }
    let parent = match bucket {
        "cache_write_1h" => "cache_write",
        "cache_read_audio" if row.contains_key("audio_input") => "audio_input",
        "cache_read_audio" => "cache_read",
        "cache_read" | "cache_write" | "audio_input" | "image_input" => "input",
        "reasoning" | "audio_output" | "image_output" => "output",
        _ => return None,
    };
    rate(row, billed_as, parent).map(|(rate, _)| (rate, true))
}

/// Every row of every shipped file that a call can be aimed at without its neighbours' help.
fn facts() -> Vec<Fact> {
    let mut facts = Vec::new();
    for source in Book::shipped() {
        let file: Table = source.text.parse().unwrap();
        let empty = Table::new();
        let billed_as = file
            .get("billed_as")
            .and_then(Value::as_table)
            .unwrap_or(&empty);
        for model in tables(&file, "model") {
            let id = text(model, "id").unwrap();
            let has_hours = tables(model, "rate").any(|row| row.contains_key("at"));
            let zoned = tables(model, "rate").any(|row| row.contains_key("tz"));
            let Some(name) = name(model).filter(|_| !has_hours && !zoned) else {
                continue;
            };
            for (n, row) in (1..).zip(tables(model, "rate")) {
                let (input_min, input_max) = context(row);
                let region = row.get("region").map(|r| match r {
                    Value::Array(regions) => regions[0].as_str().unwrap().to_owned(),
                    one => one.as_str().unwrap().to_owned(),
                });
                facts.push(Fact {
                    provider: text(&file, "provider").unwrap().to_owned(),
                    model: name.clone(),
                    tier: text(row, "tier").unwrap_or("standard").to_owned(),
                    from_day: day(row, "from").unwrap_or(0),
                    until_day: day(row, "until").unwrap_or(30_000),
                    input_min,
                    input_max,
                    region,
                    rates: Bucket::ALL.map(|b| rate(row, billed_as, b.name())).into(),
                    factors: factors(&file, id),
                    place: format!("{}: model {id} row {n}", source.name),
                });
            }
        }
    }
    facts
}

/// A name of the model without anything to be filled in.
fn name(model: &Table) -> Option<String> {
    let listed = model.get("match").and_then(Value::as_array);
    let listed = listed.into_iter().flatten().filter_map(Value::as_str);
    let names: Vec<&str> = listed.collect();
    let names = if names.is_empty() {
        vec![text(model, "id")?]
    } else {
        names
    };
    let mut plain = names.iter().map(|name| name.trim_end_matches("{snap}"));
    let plain = plain.find(|name| !name.contains(['*', '?', '#', '{']))?;
    Some(plain.to_owned())
}

/// Counts whose total input the row is for.
fn usage(fact: &Fact, dice: &mut Dice) -> Usage {
    let mut usage = Usage::new();
    let room = fact.input_max.min(fact.input_min.saturating_add(2_000_000)) - fact.input_min;
    let mut input_left = fact.input_min + dice.below(room.saturating_add(1));
    let priced = |bucket: Bucket| fact.rates[bucket as usize].is_some();
    for bucket in Bucket::ALL {
        if !priced(bucket) || dice.below(3) == 0 {
            continue;
        }
        let tokens = match bucket.is_input() {
            true => dice.below(input_left + 1),
            false => dice.below(1_000_000),
        };
        if bucket.is_input() {
            input_left -= tokens;
        }
        usage.set(bucket, Some(tokens));
    }
    if input_left > 0 && priced(Bucket::Input) {
        let so_far = usage.get(Bucket::Input).unwrap_or(0);
        usage.set(Bucket::Input, Some(so_far + input_left));
    }
    usage
}

#[test]
fn shipped_rows_cost_what_rational_numbers_say() {
    let book = Book::load(Book::shipped()).unwrap();
    let facts = facts();
    assert!(
        facts.len() > 2_000,
        "only {} rows can be aimed at",
        facts.len()
    );
    let mut dice = Dice(SEED);
    let (mut n_priced, mut n_factors) = (0, 0);
    // Every row in turn.
    for fact in facts.iter().cycle() {
        let usage = usage(fact, &mut dice);
        if usage.is_empty() {
            continue;
        }
        let mut context = BTreeMap::new();
        context.extend(
            fact.region
                .clone()
                .map(|region| ("region".to_owned(), region)),
        );
        if let Some(factor) = fact.factors.first().filter(|_| dice.below(2) == 0) {
            context.insert(factor.fact.clone(), factor.value());
        }
        let days = u64::try_from(fact.until_day - fact.from_day).unwrap();
        let day = fact.from_day + i64::try_from(dice.below(days)).unwrap();
        let priced = book.price(&Call {
            provider: &fact.provider,
            model: Some(&fact.model),
            model_requested: None,
            unix_ms: day * MS_PER_DAY + i64::try_from(dice.below(86_400_000)).unwrap(),
            service_tier: Some(&fact.tier),
            usage: &usage,
            inputs: None,
            context: &context,
        });
        let holding = fact.factors.iter().filter(|factor| {
            let value = context.get(&factor.fact).map(String::as_str);
            factor.holds(value, day)
        });
        let one = BigRational::from_integer(1.into());
        let times = holding.fold(one, |product, factor| {
            n_factors += 1;
            product * &factor.times
        });
        compare(fact, &usage, &times, &priced);
        n_priced += 1;
        if n_priced == USAGES {
            break;
        }
    }
    println!(
        "{n_priced} usages over {} rows, {n_factors} with a modifier",
        facts.len()
    );
    assert!(n_factors > 1_000, "only {n_factors} usages met a modifier");
}

fn compare(fact: &Fact, usage: &Usage, times: &BigRational, priced: &Priced) {
    let place = &fact.place;
    let Some(usd) = priced.usd else {
        panic!(
            "{place}: {usage:?} is unpriced: {:?}",
            priced.unpriced_because
        );
    };
    let million = BigRational::from_integer(1_000_000.into());
    let mut exact = BigRational::from_integer(0.into());
    let mut is_assumed = false;
    for (bucket, tokens) in usage.tokens().filter(|(_, tokens)| *tokens > 0) {
        let (rate, assumed) = fact.rates[bucket as usize].as_ref().unwrap();
        exact += rate * times * BigRational::from_integer(tokens.into()) / &million;
        is_assumed |= assumed;
    }
    // What a call costs beside its tokens is another table.
    let fees = priced
        .lines
        .iter()
        .filter(|line| Bucket::parse(line.what).is_none());
    let fees: BigRational = fees.map(|line| rational(line.usd)).sum();
    let off = rational(usd) - fees - exact;
    // Quotients are cut in their 28th digit; all else is exact.
    let cut = BigRational::new(1.into(), BigInt::from(10u8).pow(18));
    let has_quotient = fact.rates.iter().flatten().any(|(r, _)| !is_decimal(r));
    let is_right = match has_quotient {
        true => off < cut && -off < cut,
        false => off == BigRational::from_integer(0.into()),
    };
    assert!(is_right, "{place}: {usage:?} costs {usd}");
    if is_assumed {
        assert_eq!(priced.status, Status::Assumed, "{place}: {usage:?}");
    }
}

/// Whether the fraction ends in decimal notation.
fn is_decimal(fraction: &BigRational) -> bool {
    let mut rest = fraction.denom().clone();
    for prime in [2u8, 5] {
        while (&rest % prime) == BigInt::from(0u8) {
            rest /= prime;
        }
    }
    rest == BigInt::from(1u8)
}
