#!/bin/sh
set -eu
restic backup /data
restic forget --keep-daily 7 --prune
