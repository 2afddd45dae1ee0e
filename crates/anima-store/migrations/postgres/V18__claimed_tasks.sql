-- Tasks that a worker has or had, by key: few, however many wait.

CREATE INDEX task_claimed ON task (kid) WHERE lease_until > 0;
