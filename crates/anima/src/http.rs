//! What every endpoint of the data plane shares: sockets, bodies, callers, replies.
//!
//! Not here: the endpoints (`api`), the way out (`outbound`).

pub mod body; // a request's body, bounded in size and time
pub mod caller; // who asks
pub mod rate_limits; // where a caller's limits stand, in headers
pub mod reply; // headers on every reply, and refusals in the caller's format
pub mod server; // sockets, limits, graceful shutdown
pub mod terms; // the limits that a caller is under
