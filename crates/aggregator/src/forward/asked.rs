//! Questions to the store: those that a sidecar's own ledger answers, over the whole cluster.

use rusqlite::types::{Value, ValueRef};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::forward::error::{ForwardError, refused};
use crate::forward::place::Place;
use crate::forward::schema;
use crate::ledger::QueryError;
use crate::ledger::query::postgres::{self, Statement};
use crate::ledger::query::{Page, Repeats, RequestsQuery, SpendQuery, SpendRow};

/// A connection for questions.
pub struct Asked {
    client: Client,
}

impl Asked {
    /// Connects to a store that is there.
    pub async fn connect(place: &Place) -> Result<Asked, ForwardError> {
        let client = place.connect().await?;
        let known = schema::known_version();
        match schema::version(&client).await? {
            None => Err(ForwardError::NoStore),
            Some(found) if found != known => Err(ForwardError::Version { found, known }),
            Some(_) => {
                schema::check_shape(&client).await?;
                Ok(Asked { client })
            }
        }
    }

    /// The sums, ordered by interval and then by cost, the highest first.
    pub async fn spend(&mut self, query: &SpendQuery) -> Result<Vec<SpendRow>, ForwardError> {
        let max = postgres::GROUPS_MAX;
        let mut rows = Vec::new();
        for statement in postgres::spend(query) {
            let found = self.ask(&statement).await?;
            if found.len() > max {
                return Err(ForwardError::TooManyGroups { max });
            }
            for values in &found {
                let row = postgres::spend_row(&cells(values), &query.by);
                rows.push(row.map_err(|error| ForwardError::Unreadable(error.into()))?);
            }
        }
        Ok(postgres::in_order(rows))
    }

    /// How many calls repeat another one. Only calls that are kept can be told to.
    pub async fn repeats(&mut self, query: &SpendQuery) -> Result<Vec<Repeats>, ForwardError> {
        let max = postgres::GROUPS_MAX;
        let found = self.ask(&postgres::repeats(query)).await?;
        if found.len() > max {
            return Err(ForwardError::TooManyGroups { max });
        }
        let rows = found.iter().map(|values| {
            let row = postgres::repeats_row(&cells(values), &query.by);
            row.map_err(|error| ForwardError::Unreadable(error.into()))
        });
        rows.collect()
    }

    /// One page of calls.
    pub async fn requests(&mut self, query: &RequestsQuery) -> Result<Page, ForwardError> {
        let cursor = || QueryError::Cursor(query.cursor.clone().unwrap_or_default());
        let statement = postgres::requests(query).ok_or_else(cursor)?;
        let found = self.ask(&statement).await?;
        let mut page = Page::default();
        for values in found.iter().take(postgres::page_rows(query)) {
            let row = postgres::request_row(&cells(values));
            let row = row.map_err(|error| ForwardError::Unreadable(error.into()))?;
            page.items.push(row);
        }
        if found.len() > page.items.len()
            && let (Some(row), Some(values)) = (page.items.last(), found.get(page.items.len() - 1))
            && let Some(Value::Integer(key)) = values.last()
        {
            page.next_cursor = Some(postgres::cursor_after(query, row, *key));
        }
        Ok(page)
    }

    /// Asks within one transaction, which sets where names are looked up: a pooler may hand each
    /// transaction to another server process.
    async fn ask(&mut self, statement: &Statement) -> Result<Vec<Vec<Value>>, ForwardError> {
        let failed = refused("the question cannot be answered");
        let transaction = self.client.transaction().await.map_err(&failed)?;
        transaction
            .batch_execute("SET LOCAL search_path = tollmesh, pg_catalog; SET LOCAL jit = off")
            .await
            .map_err(&failed)?;
        let values: Vec<Box<dyn ToSql + Sync>> = statement.values.iter().map(parameter).collect();
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = values
            .iter()
            .map(Box::as_ref)
            .zip(statement.values.iter().map(kind))
            .collect();
        let rows = transaction
            .query_typed(&statement.sql, &typed)
            .await
            .map_err(&failed)?;
        rows.iter().map(values_of).collect()
    }
}

fn cells<'v>(values: &'v [Value]) -> impl Fn(usize) -> rusqlite::Result<ValueRef<'v>> {
    |at| {
        values
            .get(at)
            .map(ValueRef::from)
            .ok_or(rusqlite::Error::InvalidColumnIndex(at))
    }
}

fn parameter(value: &Value) -> Box<dyn ToSql + Sync> {
    match value {
        Value::Text(text) => Box::new(text.clone()),
        Value::Integer(n) => Box::new(*n),
        // A word that is none of a closed set's: the code of no row.
        _ => Box::new(None::<i64>),
    }
}

fn kind(value: &Value) -> Type {
    match value {
        Value::Text(_) => Type::TEXT,
        _ => Type::INT8,
    }
}

/// The row's integers and texts; statements ask for nothing else.
fn values_of(row: &Row) -> Result<Vec<Value>, ForwardError> {
    let value = |at: usize, kind: &Type| -> Result<Value, tokio_postgres::Error> {
        Ok(if *kind == Type::INT8 {
            row.try_get::<_, Option<i64>>(at)?
                .map_or(Value::Null, Value::Integer)
        } else if *kind == Type::INT4 {
            let n: Option<i32> = row.try_get(at)?;
            n.map_or(Value::Null, |n| Value::Integer(n.into()))
        } else if *kind == Type::INT2 {
            let n: Option<i16> = row.try_get(at)?;
            n.map_or(Value::Null, |n| Value::Integer(n.into()))
        } else {
            row.try_get::<_, Option<String>>(at)?
                .map_or(Value::Null, Value::Text)
        })
    };
    row.columns()
        .iter()
        .enumerate()
        .map(|(at, column)| {
            value(at, column.type_()).map_err(|error| ForwardError::Unreadable(error.into()))
        })
        .collect()
}
