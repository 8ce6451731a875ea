-- How far each node has read the change feed, and the indexes of the feed and of the list of revoked identities.

-- One row a node, written with each read of the feed. applied: the snapshot of which the node has applied every change,
-- NULL until it has any; a change of transaction x is applied when pg_visible_in_snapshot(x, applied). applied_xid: every
-- change of a transaction before it is applied; an open transaction anywhere in the cluster holds it back.
CREATE TABLE nodes (
    node        text PRIMARY KEY CHECK (octet_length(node) BETWEEN 1 AND 64),
    last_seen   timestamptz NOT NULL,
    applied     pg_snapshot,
    applied_xid xid8 GENERATED ALWAYS AS (pg_snapshot_xmin(applied)) STORED
);

CREATE INDEX ix_agent_registry_revoked ON agent_registry (tenant_id, spiffe_id) WHERE state = 'revoked';

-- In the order of the feed's pages: of many agents that one transaction changed, each page is read from where the last
-- one ended.
CREATE INDEX ix_agent_registry_feed ON agent_registry (changed_xid, tenant_id, spiffe_id);
DROP INDEX ix_agent_registry_changed;
