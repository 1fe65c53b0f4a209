//! How fences stand at their hooks: attached, ours, first.
//!
//! What is found is evaluated by pure functions. Invariants: a program that runs before ours counts,
//! whatever it does, because looking inside would need CAP_SYS_ADMIN; a hook that cannot be looked at is
//! never taken for one that is in order. What to do about it is decided elsewhere.

use std::{collections::BTreeMap, io, sync::Arc};

use nix::net::if_::if_indextoname;

use super::{
    attach::HOOKS,
    clsact, filters,
    link_queue::Fences,
    tcx_query::{self, AtHook},
};

/// How a fence stands, at the worse of its two hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Both programs are attached, and no other runs before them.
    First,
    /// Another program runs before ours.
    Behind {
        /// Our program.
        hook: &'static str,
        /// The ID of the first program, 0 for a filter without one.
        program: u32,
    },
    /// Our program is not attached.
    Absent {
        /// Our program.
        hook: &'static str,
    },
    /// The interface is not in the agent's network namespace any more.
    Gone,
    /// The kernel does not say how it stands.
    Unknown {
        /// Its error.
        error: String,
    },
}

impl Standing {
    /// From best to worst; what is absent is repaired whatever else is wrong.
    const fn rank(&self) -> u8 {
        match self {
            Self::First => 0,
            Self::Behind { .. } => 1,
            Self::Unknown { .. } => 2,
            Self::Absent { .. } => 3,
            Self::Gone => 4,
        }
    }
}

/// A look at every fence, for any thread: each hook waits for the kernel's lock over all network devices,
/// which others may hold for long.
pub type Look = Box<dyn FnOnce() -> BTreeMap<u32, Standing> + Send>;

/// What the agent attached at the hooks of an interface, in the order of [`HOOKS`]: the IDs of links, 0
/// for filters.
pub(super) type Links = [u32; HOOKS.len()];

/// Looks at every fence, given the IDs of the programs in the order of [`HOOKS`].
pub(super) fn look(has_tcx: bool, programs: [u32; HOOKS.len()], fences: Arc<Fences>) -> Look {
    Box::new(move || {
        let look_at = |ifindex| {
            let standing = |links| standing_of(ifindex, links, programs, has_tcx);
            Some((ifindex, fences.while_unchanged(ifindex, standing)?))
        };
        fences
            .interfaces()
            .into_iter()
            .filter_map(look_at)
            .collect()
    })
}

fn standing_of(
    ifindex: u32,
    links: Links,
    programs: [u32; HOOKS.len()],
    has_tcx: bool,
) -> Standing {
    let hooks = HOOKS.into_iter().zip(links.into_iter().zip(programs));
    let standings = hooks.map(|((name, hook), (link, program))| {
        let found = if link == 0 {
            at_clsact_hook(ifindex, hook, has_tcx)
        } else {
            tcx_query::query(ifindex, hook)
        };
        evaluated(name, found, AtHook { link, program })
    });
    let worst = standings.max_by_key(Standing::rank);
    match worst.unwrap_or(Standing::First) {
        // A list of filters does not tell this apart.
        Standing::Absent { .. } if if_indextoname(ifindex).is_err() => Standing::Gone,
        standing => standing,
    }
}

/// What runs at a hook when our programs are filters: programs of tcx before all filters. A filter in the
/// place of ours has no link, others have one that is none.
fn at_clsact_hook(
    ifindex: u32,
    hook: aya::programs::TcAttachType,
    has_tcx: bool,
) -> io::Result<Vec<AtHook>> {
    const NO_LINK: u32 = u32::MAX;
    let mut found = if has_tcx {
        tcx_query::query(ifindex, hook)?
    } else {
        Vec::new()
    };
    for other in &mut found {
        other.link = NO_LINK;
    }
    let filters = filters::list(ifindex, hook)?.into_iter();
    found.extend(filters.map(|filter| AtHook {
        link: if clsact::is_in_our_place(&filter) {
            0
        } else {
            NO_LINK
        },
        program: filter.program,
    }));
    Ok(found)
}

/// How our program stands at a hook where this was found.
fn evaluated(hook: &'static str, found: io::Result<Vec<AtHook>>, ours: AtHook) -> Standing {
    match found {
        Ok(found) if !found.contains(&ours) => Standing::Absent { hook },
        Ok(found) => match found.first() {
            Some(first) if *first != ours => Standing::Behind {
                hook,
                program: first.program,
            },
            _ => Standing::First,
        },
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Standing::Gone,
        Err(error) => Standing::Unknown {
            error: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: AtHook = AtHook {
        link: 7,
        program: 70,
    };
    const OTHER: AtHook = AtHook {
        link: 8,
        program: 80,
    };

    fn evaluate(found: &[AtHook]) -> Standing {
        evaluated("from_workload", Ok(found.to_vec()), OURS)
    }

    #[test]
    fn a_fence_is_in_order_only_if_it_is_ours_and_first() {
        let hook = "from_workload";
        assert_eq!(evaluate(&[OURS]), Standing::First);
        assert_eq!(evaluate(&[OURS, OTHER]), Standing::First);
        assert_eq!(
            evaluate(&[OTHER, OURS]),
            Standing::Behind { hook, program: 80 }
        );
        assert_eq!(evaluate(&[]), Standing::Absent { hook });
        assert_eq!(evaluate(&[OTHER]), Standing::Absent { hook });
    }

    #[test]
    fn our_link_with_another_program_is_not_ours() {
        let replaced = AtHook {
            program: 80,
            ..OURS
        };
        assert!(matches!(evaluate(&[replaced]), Standing::Absent { .. }));
        let another_link = AtHook { link: 8, ..OURS };
        assert!(matches!(evaluate(&[another_link]), Standing::Absent { .. }));
    }

    #[test]
    fn what_cannot_be_seen_is_not_in_order() {
        let failed = |code| evaluated("to_workload", Err(io::Error::from_raw_os_error(code)), OURS);
        assert_eq!(failed(libc::ENODEV), Standing::Gone);
        assert!(matches!(failed(libc::EPERM), Standing::Unknown { .. }));
    }
}
