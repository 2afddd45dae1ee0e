//! What an error of PostgreSQL means for a batch.
//!
//! Not here: what is done about it (`batch`, `engine`). Invariant: an error after which it is not
//! known whether the batch was written is never called a refusal.

use tokio_postgres::error::SqlState;

use crate::ledger::batch::Failure;
use crate::postgres::Chain;

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// The transaction met another one. It left nothing: make it again.
    Again(String),
    /// Anything else.
    Fail(Failure),
}

impl From<tokio_postgres::Error> for Next {
    fn from(error: tokio_postgres::Error) -> Self {
        next(&error)
    }
}

/// Conditions of the server and not of what is written, by the first two letters of their code:
/// connection exceptions, resources, operator intervention, system errors.
const SERVER: &[&str] = &["08", "53", "57", "58"];

/// Reads an error.
pub(super) fn next(error: &tokio_postgres::Error) -> Next {
    let why = Chain(error).to_string();
    let Some(code) = error.code() else {
        // No answer from the server: the connection, or something that could not be sent or read.
        return Next::Fail(if error.is_closed() || is_io(error) {
            Failure::Lost(why)
        } else {
            Failure::Refused(why)
        });
    };
    let again = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    if again.contains(code) {
        return Next::Again(why);
    }
    // A standby after a failover refuses to write, until it is promoted.
    let away = *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || code.code().get(..2).is_some_and(|class| SERVER.contains(&class));
    Next::Fail(if away { Failure::Lost(why) } else { Failure::Refused(why) })
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if current.is::<std::io::Error>() {
            return true;
        }
        cause = current.source();
    }
    false
}
