//! A place for a connection that is being opened: in the budget, and in the share of the block of its address.

use std::net::IpAddr;

use http::uri::Authority;

use super::address::block;
use super::connection_budget::{Connection, ConnectionBudget};
use super::shares::Held;

/// A place for a connection that is being opened.
#[derive(Debug)]
pub(super) struct Place {
    budget: ConnectionBudget,
    held: Vec<Held>,
    blocks: Vec<(IpAddr, Held)>,
    is_spare: bool,
}

impl Place {
    pub(super) const fn new(budget: ConnectionBudget, held: Vec<Held>, is_spare: bool) -> Self {
        Self {
            budget,
            held,
            blocks: Vec::new(),
            is_spare,
        }
    }

    /// Takes a place in the blocks of the addresses. Returns those whose block has one; if none has, it waits for the first
    /// block, unless the place is a spare one. Hosts that the policy names have no share.
    pub(super) async fn at(&mut self, addrs: Vec<IpAddr>) -> Vec<IpAddr> {
        if self.budget.is_named(&self.held) {
            return addrs;
        }
        for addr in addrs.iter().map(|addr| block(*addr)) {
            if !self.has(addr)
                && let Some(held) = self.budget.share_of(addr).try_take()
            {
                self.blocks.push((addr, held));
            }
        }
        if self.blocks.is_empty()
            && !self.is_spare
            && let Some(first) = addrs.first().map(|addr| block(*addr))
        {
            let pool = self.budget.share_of(first);
            self.blocks.push((first, self.budget.take(&pool).await));
        }
        addrs
            .into_iter()
            .filter(|addr| self.has(block(*addr)))
            .collect()
    }

    fn has(&self, block: IpAddr) -> bool {
        self.blocks.iter().any(|(held, _)| *held == block)
    }

    /// Enters the connection that was opened. The places in other blocks are returned.
    pub(super) fn open(mut self, authority: Authority, peer: Option<IpAddr>) -> Connection {
        let peer = peer.map(block);
        self.blocks.retain(|(block, _)| Some(*block) == peer);
        self.held
            .extend(self.blocks.into_iter().map(|(_, held)| held));
        self.budget.enter(authority, self.held)
    }
}

/// All connections that a registrable domain or a block of addresses may have are in use.
#[derive(Debug)]
pub(super) struct ShareInUse;

impl std::fmt::Display for ShareInUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("all connections that the host's domain may have are in use")
    }
}

impl std::error::Error for ShareInUse {}
