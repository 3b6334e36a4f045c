-- Shares of data keys: of a quorum, whose members open together, each member has a row.
ALTER TABLE vault_wraps
    ADD COLUMN IF NOT EXISTS quorum LowCardinality(String) COMMENT 'quorum whose member the recipient is; empty when he opens alone' AFTER recipient,
    ADD COLUMN IF NOT EXISTS threshold UInt8 COMMENT 'members of the quorum that open together' AFTER ciphertext,
    ADD COLUMN IF NOT EXISTS position UInt8 COMMENT 'number of the share, from 1' AFTER threshold,
    ADD COLUMN IF NOT EXISTS public_key String COMMENT 'the member''s X25519 key' AFTER position,
    ADD COLUMN IF NOT EXISTS commitment String COMMENT 'SHA-256 of the share' AFTER public_key,
    MODIFY ORDER BY (key_id, recipient, quorum);
