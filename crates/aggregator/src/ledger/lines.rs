//! Cost lines as a column's compact JSON: `[what, amount, rate, times, usd]`, and where they have
//! more to say `assumed, extra, row` after it.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::Value;

use crate::ledger::entry::CostLine;

/// The column's text; `None` for no lines.
pub fn write(lines: &[CostLine]) -> Option<String> {
    if lines.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(lines.len() * 64);
    for line in lines {
        text.push(if text.is_empty() { '[' } else { ',' });
        write_line(&mut text, line);
    }
    text.push(']');
    Some(text)
}

fn write_line(text: &mut String, line: &CostLine) {
    text.push('[');
    write_what(text, &line.what);
    for number in [line.amount, line.rate, line.times, line.usd] {
        text.push_str(",\"");
        write_number(text, number);
        text.push('"');
    }
    if line.assumed || line.extra.is_some() || line.row.is_some() {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            ",{},{},{}",
            line.assumed,
            Value::from(line.extra),
            Value::from(line.row.as_deref())
        );
    }
    text.push(']');
}

/// The name of what is priced; ours need no escapes.
fn write_what(text: &mut String, what: &str) {
    if what.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        text.push('"');
        text.push_str(what);
        text.push('"');
    } else {
        let _ = write!(text, "{}", Value::from(what));
    }
}

/// A decimal as it prints. Most are whole numbers that fit a word, and are printed as such.
fn write_number(text: &mut String, number: Decimal) {
    let _ = match (number.scale(), u64::try_from(number.mantissa())) {
        (0, Ok(whole)) => write!(text, "{whole}"),
        _ => write!(text, "{number}"),
    };
}

/// The lines of a column's text; `None` if no ledger wrote it.
pub fn read(text: Option<&str>) -> Option<Vec<CostLine>> {
    let Some(text) = text else {
        return Some(Vec::new());
    };
    let lines: Vec<Vec<Value>> = serde_json::from_str(text).ok()?;
    lines.iter().map(|line| read_line(line)).collect()
}

fn read_line(line: &[Value]) -> Option<CostLine> {
    let (fixed, more) = line.split_at_checked(5)?;
    let [what, numbers @ ..] = fixed else {
        return None;
    };
    let number = |i: usize| numbers.get(i)?.as_str()?.parse::<Decimal>().ok();
    Some(CostLine {
        what: Cow::Owned(what.as_str()?.to_owned()),
        amount: number(0)?,
        rate: number(1)?,
        times: number(2)?,
        usd: number(3)?,
        assumed: more.first().and_then(Value::as_bool).unwrap_or(false),
        extra: more
            .get(1)
            .and_then(Value::as_u64)
            .and_then(|index| u32::try_from(index).ok()),
        row: more.get(2).and_then(Value::as_str).map(Arc::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_whole() {
        let plain = CostLine {
            what: "input".into(),
            amount: 1234.into(),
            rate: "2.50".parse().unwrap(),
            times: 1.into(),
            usd: "0.003085".parse().unwrap(),
            assumed: false,
            extra: None,
            row: None,
        };
        let extra = CostLine {
            what: "reasoning \"odd\"".into(),
            assumed: true,
            extra: Some(2),
            row: Some("anthropic.toml:claude:1".into()),
            ..plain.clone()
        };
        let text = write(&[plain.clone(), extra.clone()]).unwrap();
        assert_eq!(
            text,
            r#"[["input","1234","2.50","1","0.003085"],["reasoning \"odd\"","1234","2.50","1","0.003085",true,2,"anthropic.toml:claude:1"]]"#
        );
        assert_eq!(read(Some(&text)), Some(vec![plain, extra]));
        assert_eq!((write(&[]), read(None)), (None, Some(vec![])));
        assert_eq!(read(Some(r#"[["input","1"]]"#)), None);
    }
}
