#!/bin/sh
# Makes the database in its volume the first time, then becomes the server.
set -eu

volume=/var/lib/postgresql/data
data=$volume/main
programs=$(echo /usr/lib/postgresql/*/bin)

if [ ! -d "$data" ]; then
	# Under another name until it is whole: being killed half-way leaves nothing that looks finished.
	new=$volume/new
	rm -rf "$new"
	"$programs/initdb" --pgdata "$new" --username shop --pwfile "$DATABASE_PASSWORD_FILE" --encoding UTF8 \
		--auth-local trust --auth-host scram-sha-256
	echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
	echo 'CREATE DATABASE shop' | "$programs/postgres" --single -D "$new" postgres
	mv "$new" "$data"
fi

exec "$programs/postgres" -D "$data" -c 'listen_addresses=*'
