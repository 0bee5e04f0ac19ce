//! Sums of 128 bits in SQLite, whose own integers end at 63: `sum128(x)` and `add128(x, y)`.
//!
//! A wide number is an SQL integer while it fits one, else its decimal digits as text. SQLite's
//! `SUM` fails beyond 2^63, which pico-dollars reach at $9.2 million.

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Error};

/// A number of up to 128 bits in a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wide(pub i128);

/// Makes the functions known to a connection.
pub fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_aggregate_function("sum128", 1, flags, Sum)?;
    connection.create_scalar_function("add128", 2, flags, |context| {
        let (a, b) = (context.get::<Wide>(0)?.0, context.get::<Wide>(1)?.0);
        a.checked_add(b).map(Wide).ok_or_else(overflow)
    })
}

/// An SQL expression of the sum of two wide numbers. Where both are far from the end of integers, as
/// they nearly always are, it is SQLite's own, which takes a fraction of a function's call.
pub fn sum_of(one: &str, other: &str) -> String {
    // Of two numbers below half of the range; a text is above every integer.
    let is_small = |n: &str| format!("{n} BETWEEN -4611686018427387904 AND 4611686018427387903");
    format!(
        "CASE WHEN {} AND {} THEN {one} + {other} ELSE add128({one}, {other}) END",
        is_small(one),
        is_small(other)
    )
}

/// `sum128`: `NULL` counts as nothing, and the sum of nothing is 0.
struct Sum;

impl Aggregate<i128, Wide> for Sum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<i128> {
        Ok(0)
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut i128) -> rusqlite::Result<()> {
        let term: Option<Wide> = context.get(0)?;
        *sum = sum
            .checked_add(term.unwrap_or_default().0)
            .ok_or_else(overflow)?;
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<i128>) -> rusqlite::Result<Wide> {
        Ok(Wide(sum.unwrap_or(0)))
    }
}

fn overflow() -> Error {
    Error::UserFunctionError("a sum exceeds 128 bits".into())
}

impl FromSql for Wide {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Wide> {
        match value {
            ValueRef::Integer(n) => Ok(Wide(i128::from(n))),
            ValueRef::Text(_) => value
                .as_str()?
                .parse()
                .map(Wide)
                .map_err(|source| FromSqlError::Other(Box::new(source))),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for Wide {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(match i64::try_from(self.0) {
            Ok(n) => Value::Integer(n),
            Err(_) => Value::Text(self.0.to_string()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection).unwrap();
        connection
    }

    #[test]
    fn sums_where_sqlite_stops() {
        let connection = connection();
        connection
            .execute_batch(
                "CREATE TABLE t (x ANY) STRICT;
                 INSERT INTO t VALUES (9223372036854775807), (9223372036854775807), (NULL),
                                      ('100000000000000000000000000000'), (-5);",
            )
            .unwrap();
        let sum = |sql| connection.query_row(sql, [], |row| row.get::<_, Wide>(0));
        assert!(sum("SELECT sum(x) FROM t WHERE typeof(x) = 'integer'").is_err());
        assert_eq!(
            sum("SELECT sum128(x) FROM t").unwrap(),
            Wide(100_000_000_018_446_744_073_709_551_609)
        );
        assert_eq!(sum("SELECT sum128(x) FROM t WHERE 0").unwrap(), Wide(0));
        assert!(sum("SELECT sum128('ten')").is_err());
        assert!(sum("SELECT sum128(1.5)").is_err());
    }

    proptest! {
        #[test]
        fn a_column_of_any_keeps_every_digit(a: i64, b: i64, times in 1_i128..1_000_000) {
            let connection = connection();
            connection.execute_batch("CREATE TABLE t (x ANY NOT NULL) STRICT").unwrap();
            let first = Wide(i128::from(a) * times);
            connection.execute("INSERT INTO t VALUES (?1)", [first]).unwrap();
            connection.execute("UPDATE t SET x = add128(x, ?1)", [Wide(i128::from(b))]).unwrap();
            let got: Wide = connection.query_row("SELECT x FROM t", [], |row| row.get(0)).unwrap();
            prop_assert_eq!(got.0, first.0 + i128::from(b));
        }
    }
}
