//! Values and records that look the same from both databases.
//!
//! SQLite keeps an id as 16 bytes and a flag as a number, PostgreSQL as what they are; a record
//! hides that. Invariant: a column that is not what the reader expects is an error, never a guess.

use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::ledger::Error;

/// A parameter or a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Id(Uuid),
    Bytes(Vec<u8>),
    Flag(bool),
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record(Vec<Value>);

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<i16> for Value {
    fn from(number: i16) -> Self {
        Self::Int(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Id(id) => ValueRef::Blob(id.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
            Self::Flag(flag) => ValueRef::Integer((*flag).into()),
        }))
    }
}

type Failure = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Failure> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => match *kind {
                Type::INT2 => i16::try_from(*number)?.to_sql(kind, out),
                Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
                Type::INT8 => number.to_sql(kind, out),
                _ => Err(format!("a number is bound to {kind}").into()),
            },
            Self::Text(text) if <&str as ToSql>::accepts(kind) => text.as_str().to_sql(kind, out),
            Self::Id(id) if *kind == Type::UUID => id.to_sql(kind, out),
            Self::Bytes(bytes) if *kind == Type::BYTEA => bytes.as_slice().to_sql(kind, out),
            Self::Flag(flag) if *kind == Type::BOOL => flag.to_sql(kind, out),
            Self::Text(_) | Self::Id(_) | Self::Bytes(_) | Self::Flag(_) => {
                Err(format!("a value of another type is bound to {kind}").into())
            }
        }
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Parameters as the driver takes them.
pub(crate) fn bound(parameters: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    parameters.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl Record {
    pub(crate) fn of_sqlite(row: &rusqlite::Row<'_>, columns: usize) -> rusqlite::Result<Self> {
        let value = |n| {
            Ok(match row.get_ref(n)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Int(number),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(bytes) => Value::Bytes(bytes.to_owned()),
                ValueRef::Real(_) => {
                    let kind = rusqlite::types::Type::Real;
                    return Err(rusqlite::Error::InvalidColumnType(n, "a sum".to_owned(), kind));
                }
            })
        };
        (0..columns).map(value).collect::<rusqlite::Result<_>>().map(Self)
    }

    pub(crate) fn of_postgres(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        let value = |(n, column): (usize, &tokio_postgres::Column)| {
            Ok(match *column.type_() {
                Type::INT2 => row.try_get::<_, Option<i16>>(n)?.into(),
                Type::INT4 => row.try_get::<_, Option<i32>>(n)?.map(i64::from).into(),
                Type::INT8 => row.try_get::<_, Option<i64>>(n)?.into(),
                Type::BOOL => row.try_get::<_, Option<bool>>(n)?.into(),
                Type::UUID => row.try_get::<_, Option<Uuid>>(n)?.into(),
                Type::BYTEA => row.try_get::<_, Option<&[u8]>>(n)?.into(),
                _ => row.try_get::<_, Option<&str>>(n)?.into(),
            })
        };
        row.columns().iter().enumerate().map(value).collect::<Result<_, _>>().map(Self)
    }

    fn at(&self, n: usize) -> &Value {
        self.0.get(n).unwrap_or(&Value::Null)
    }

    pub(crate) fn int(&self, n: usize) -> Result<i64, Error> {
        self.maybe_int(n)?.ok_or_else(|| damaged(n))
    }

    pub(crate) fn maybe_int(&self, n: usize) -> Result<Option<i64>, Error> {
        match self.at(n) {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(*number)),
            Value::Text(_) | Value::Id(_) | Value::Bytes(_) | Value::Flag(_) => Err(damaged(n)),
        }
    }

    /// A sum, which the query gives as text because it may be wider than 64 bits.
    pub(crate) fn sum(&self, n: usize) -> Result<i128, Error> {
        self.text(n)?.parse().ok().ok_or_else(|| damaged(n))
    }

    pub(crate) fn text(&self, n: usize) -> Result<&str, Error> {
        self.maybe_text(n)?.ok_or_else(|| damaged(n))
    }

    pub(crate) fn maybe_text(&self, n: usize) -> Result<Option<&str>, Error> {
        match self.at(n) {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            Value::Int(_) | Value::Id(_) | Value::Bytes(_) | Value::Flag(_) => Err(damaged(n)),
        }
    }

    pub(crate) fn id(&self, n: usize) -> Result<Uuid, Error> {
        match self.at(n) {
            Value::Id(id) => Ok(*id),
            Value::Bytes(bytes) => Uuid::from_slice(bytes).ok().ok_or_else(|| damaged(n)),
            Value::Null | Value::Int(_) | Value::Text(_) | Value::Flag(_) => Err(damaged(n)),
        }
    }

    pub(crate) fn bytes(&self, n: usize) -> Result<&[u8], Error> {
        match self.at(n) {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Null | Value::Int(_) | Value::Text(_) | Value::Id(_) | Value::Flag(_) => {
                Err(damaged(n))
            }
        }
    }

    pub(crate) fn maybe_id(&self, n: usize) -> Result<Option<Uuid>, Error> {
        if *self.at(n) == Value::Null { Ok(None) } else { self.id(n).map(Some) }
    }

    pub(crate) fn maybe_bytes(&self, n: usize) -> Result<Option<&[u8]>, Error> {
        if *self.at(n) == Value::Null { Ok(None) } else { self.bytes(n).map(Some) }
    }

    pub(crate) fn flag(&self, n: usize) -> Result<bool, Error> {
        match self.at(n) {
            Value::Flag(flag) => Ok(*flag),
            Value::Int(number) => Ok(*number != 0),
            Value::Null | Value::Text(_) | Value::Id(_) | Value::Bytes(_) => Err(damaged(n)),
        }
    }
}

fn damaged(n: usize) -> Error {
    Error::Refused(format!("a stored row cannot be read: column {n}"))
}
