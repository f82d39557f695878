"""The errors of PostgreSQL that a user can cause, by SQLSTATE or its class, and what to do."""

from wholeday.schema.tables import IN_THE_WAY

# Transient: the same transaction may succeed if it runs again.
TRANSIENT = {
    *("40001", "40P01"),  # two transactions conflicted
    *("57P01", "57P02", "57P03", "57P05", "25P03", "25P04"),  # the server or the session ended
}
DROP_DEPENDENT = "drop what depends on it, and create that again afterwards"
NEXT_STEPS = {
    "55P03": "another program is writing to it: wait until it ends, or end it, and run again",
    "57014": "somebody cancelled it there, or statement_timeout is too short for this role",
    "42501": "grant this role the right, and run again",
    "25006": "a standby, or read-only: name the server that takes writes; "
    "of several hosts, target_session_attrs=read-write finds it",
    "2BP01": DROP_DEPENDENT,
    "23": IN_THE_WAY,
    "P0001": IN_THE_WAY,
    "22P05": "the database cannot hold every character: choose one that was created with encoding 'UTF8'",
    "42809": "its name is taken by another program: choose another schema or database",
    "54000": "a key is too long for an index: reject such records in cleaning",
    "53": "the server lacks a resource: raise its limit, and run again",
    "53100": "free space on the disk of the server, and run again",
    "53200": "the server is short of memory: lower its work_mem or max_connections, and run again",
    "53400": "raise that limit of the server for this role, and run again",
    "58030": "check the disk of the server, and run again",
    "XX001": "a table is damaged: restore the database from a backup, or rebuild it",
    "XX002": "an index is damaged: reindex it, and run again",
}
