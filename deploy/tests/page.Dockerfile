FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY page /www/page
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
