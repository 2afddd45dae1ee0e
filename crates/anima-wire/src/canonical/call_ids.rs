//! Ids for calls of tools whose provider gives none.
//!
//! A conversation holds the calls of many answers, and clients, like other providers, know a call
//! by its id alone. Invariant: ids are made of the answer that the calls stand in, so that two
//! answers of a conversation do not make the same. Source: `c-conversion` C.4.

/// Bytes of an answer that are looked at: they hold its id, or what it says.
const LOOKED_AT: usize = 1_024;

/// Makes the ids of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CallIds(u64);

impl CallIds {
    /// For the answer of this id, which may be empty, that begins with these bytes.
    pub(crate) fn of(id: &str, payload: &[u8]) -> Self {
        let bytes = id.bytes().chain(payload.iter().copied().take(LOOKED_AT));
        // FNV-1a.
        Self(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// The id of a call by its place in the answer.
    pub(crate) fn id(self, place: usize) -> String {
        format!("call_{:016x}_{place}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_by_answer_and_by_place_and_by_nothing_else() {
        let first = CallIds::of("", b"{\"candidates\":[1]}");
        assert_eq!(first, CallIds::of("", b"{\"candidates\":[1]}"));
        let ids = [first, CallIds::of("", b"{\"candidates\":[2]}"), CallIds::of("r", b"{}")];
        let mut all: Vec<_> = ids.iter().flat_map(|ids| [ids.id(0), ids.id(1)]).collect();
        assert!(all.iter().all(|id| id.len() <= 40), "OpenAI takes 40 characters: {all:?}");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
